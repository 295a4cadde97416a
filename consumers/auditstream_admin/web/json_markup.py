"""JSON text as HTML: a class for each kind of token, for people who read payloads."""

import re

from markupsafe import Markup, escape

from auditstream_admin.events.json_layout import laid_out

MOST = 256 * 1024
"""Characters that are marked; a larger text is shown as it is."""

_TOKEN = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=: )|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<word>true|false|null)|(?P<number>-?\d[\d.eE+-]*)",
    re.DOTALL,
)


def marked(text: str) -> Markup:
    """Lay a JSON text out and mark its tokens; texts are isolated, so that none turns its line around."""
    shown = laid_out(text)
    if len(shown) > MOST:
        return escape(shown)
    parts: list[str | Markup] = []
    end = 0
    for match in _TOKEN.finditer(shown):
        parts.append(escape(shown[end : match.start()]))
        parts.append(Markup('<bdi class="j-{}">{}</bdi>').format(match.lastgroup, match[0]))
        end = match.end()
    parts.append(escape(shown[end:]))
    return Markup("").join(parts)
