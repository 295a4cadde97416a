"""Template filters for times, durations, numbers and JSON."""

import re
from collections.abc import Callable, Mapping
from datetime import tzinfo
from typing import Any

from markupsafe import Markup, escape

from auditstream_admin.events.time_range import date_time, local
from auditstream_schemas.timestamp import NANOSECONDS

_MAX_MARKED = 256 * 1024
"""Longer texts, in characters, are indented but not marked."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)
_MARKED = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=: )|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<word>true|false|null)|(?P<number>-?\d[\d.eE+-]*)",
    re.DOTALL,
)
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def day(nanoseconds: int, zone: tzinfo) -> str:
    """A date with weekday and month name."""
    moment = local(nanoseconds, zone)
    return f"{moment:%A}, {moment.day} {moment:%B %Y}"


def clock(nanoseconds: int, zone: tzinfo) -> str:
    """The time of day, to the millisecond."""
    return date_time(nanoseconds, zone)[11:]


def long(nanoseconds: int, zone: tzinfo) -> str:
    """Date and time to the nanosecond."""
    return f"{local(nanoseconds, zone):%Y-%m-%d %H:%M:%S}.{nanoseconds % NANOSECONDS:09d}"


def moment(nanoseconds: int, zone: tzinfo, now: int) -> str:
    """The time of day, to the second; with the date if that is not today."""
    text = date_time(nanoseconds, zone)[:19]
    return text[11:] if text[:10] == date_time(now, zone)[:10] else text


def zone_name(nanoseconds: int, zone: tzinfo) -> str:
    """The abbreviation of a time zone at an instant."""
    return local(nanoseconds, zone).tzname() or "UTC"


def lapse(first: int, last: int) -> str:
    """The time from one instant to another, "later" or "earlier"; both in nanoseconds."""
    seconds = abs(last - first) / NANOSECONDS
    word = "later" if last >= first else "earlier"
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit} {word}"
    return f"{seconds:.3f} s {word}" if seconds < 10 else f"{seconds:.0f} s {word}"


def duration(seconds: float) -> str:
    """A duration, rounded."""
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"


def size(count: int) -> str:
    """A number of bytes with a unit."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 1000 or unit == "TB":
            break
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the singular or the plural."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def indented(text: str, *, indent: str = "  ") -> str:
    """Put each member and element of a JSON text on its own line, as ``json.dumps`` with an indent does.

    The text is not parsed. Only white space between tokens changes: every digit and escape stays as it is.
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
    """Indent a JSON text, and give each kind of token a CSS class. Strings are isolated against right-to-left text."""
    text = indented(text)
    if len(text) > _MAX_MARKED:
        return escape(text)
    parts: list[str | Markup] = []
    end = 0
    for match in _MARKED.finditer(text):
        parts.append(escape(text[end : match.start()]))
        parts.append(Markup('<bdi class="j-{}">{}</bdi>').format(match.lastgroup, match[0]))
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


FILTERS: Mapping[str, Callable[..., Any]] = {
    "time": date_time,
    "thousands": "{:,}".format,
    **{function.__name__: function for function in (day, clock, long, moment, duration, size, counted)},
}
"""The filters by their name in templates."""
