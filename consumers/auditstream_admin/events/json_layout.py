"""JSON for people: lines and indents between the tokens; no token is read, so every digit and escape stays."""

import re

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)
_OPEN = frozenset("{[")
_CLOSE = frozenset("}]")


def laid_out(text: str, *, indent: str = "  ") -> str:
    """Put each member and element of a JSON text on a line of its own; an empty object or array stays on one."""
    parts: list[str] = []
    depth = 0
    opened = False
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if piece in _CLOSE:
            depth = max(0, depth - 1)
            if not opened:
                parts.append("\n" + indent * depth)
        elif opened:
            parts.append("\n" + indent * depth)
        opened = piece in _OPEN
        if opened:
            depth += 1
        if piece == ",":
            parts.append(",\n" + indent * depth)
        elif piece == ":":
            parts.append(": ")
        else:
            parts.append(piece)
    return "".join(parts)
