"""Every page of the docs is short, leads where its links say, and uses the words of the glossary."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
PAGES = sorted(name for name in _LISTED if (ROOT / name).is_file())
LONGEST = 149
REFERENCE = "/docs/reference/"
"""Generated pages may be longer."""

OLD_WORDS = {
    r"\bbooks?\b": "ledger",
    r"\baccount(s|ed) (of|for) (every|each|all|partition)": "ledger",
    r"\bbooks? balance": "the ledger balances",
    r"(?<!dead )(?<!dead-)(?<!ascii )(?<!with a )\bletters?\b": "dead letter",
    r"\bverdicts?\b|\bjudge": "status, classify",
    r"\bwarehouse\b": "writer",
    r"\bflood\b": "dead-letter limit",
    r"\bmarker of a closed\b|\bcloses? (dead )?letters": "resolution record, resolve",
    r"\bsweeps?\b|\bsecond look\b": "ledger queries, recheck",
    r"\bzombies?\b": "a sink that was paused",
}
"""A pattern of old words, and the word to use."""

_ALLOWED = {
    # It lists the renamings.
    "CHANGELOG.md": set(OLD_WORDS),
}


@cache
def _text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def _prose(name: str) -> str:
    """The page without blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", _text(name), flags=re.DOTALL | re.MULTILINE)


@cache
def _anchors(name: str) -> set[str]:
    """Anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", _prose(name), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", [name for name in PAGES if REFERENCE not in name])
def test_a_page_is_short(name: str) -> None:
    assert len(_text(name).splitlines()) <= LONGEST


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_somewhere(name: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        page = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        if not page.exists():
            broken.append(target)
        elif anchor and anchor not in _anchors(str(page.relative_to(ROOT))):
            broken.append(f"{target} (no such heading)")
    assert not broken


@pytest.mark.parametrize("name", PAGES)
def test_a_page_uses_the_words_of_the_glossary(name: str) -> None:
    if name.endswith("docs/glossary.md"):
        pytest.skip("it may name the old words")
    prose = " ".join(_prose(name).split())
    found = {
        word: match[0]
        for pattern, word in OLD_WORDS.items()
        if pattern not in _ALLOWED.get(name, set()) and (match := re.search(pattern, prose, re.IGNORECASE))
    }
    assert not found
