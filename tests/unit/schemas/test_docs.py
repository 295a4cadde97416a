"""The Python code in the pages about the event runs."""

import re
from pathlib import Path

import pytest

from auditstream_schemas import AuditEvent

DOCS = Path(__file__).parents[3] / "schemas" / "docs"


@pytest.mark.parametrize("page", ["event.md", "wire.md"])
def test_the_code_of_a_page_runs(page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})  # noqa: S102 - code of this repository


def test_the_json_example_is_an_event() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", (DOCS / "event.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert AuditEvent.from_json(block).target.type == "context"
