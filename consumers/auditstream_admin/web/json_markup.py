"""JSON text as HTML: indented, with a CSS class for each kind of token. The text is not parsed, so it stays exact."""

import re

from markupsafe import Markup, escape

MAX_LENGTH = 256 * 1024
"""Longer texts, in characters, are indented but not marked."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)
_MARKED = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=: )|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<word>true|false|null)|(?P<number>-?\d[\d.eE+-]*)",
    re.DOTALL,
)


def indented(text: str, *, indent: str = "  ") -> str:
    """Put each member and element of a JSON text on its own line, as ``json.dumps`` with an indent does.

    Only white space between tokens changes: every digit and escape stays as it is.
    """
    parts: list[str] = []
    depth = 0
    after_open = False
    for piece in _TOKEN.findall(text):
        is_close = piece in "}]"
        if is_close:
            depth = max(0, depth - 1)
        if after_open != is_close:
            parts.append("\n" + indent * depth)
        after_open = piece in "{["
        if after_open:
            depth += 1
        parts.append({",": ",\n" + indent * depth, ":": ": "}.get(piece, piece))
    return "".join(parts)


def marked(text: str) -> Markup:
    """Indent a JSON text and mark its tokens; strings are isolated, so that right-to-left text stays in its place."""
    text = indented(text)
    if len(text) > MAX_LENGTH:
        return escape(text)
    parts: list[str | Markup] = []
    end = 0
    for match in _MARKED.finditer(text):
        parts.append(escape(text[end : match.start()]))
        parts.append(Markup('<bdi class="j-{}">{}</bdi>').format(match.lastgroup, match[0]))
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])
