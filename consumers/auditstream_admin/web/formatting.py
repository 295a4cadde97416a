"""How times, lengths and numbers read on the page."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

from auditstream_admin.events.time_range import shown
from auditstream_schemas.timestamp import NANOSECONDS

Clock = Callable[[], int]
"""Nanoseconds since the epoch."""

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_SIZES = ("kB", "MB", "GB", "TB")


def local(nanoseconds: int, zone: tzinfo) -> datetime:
    """An instant in a zone, to the second; in UTC where the zone's calendar ends."""
    try:
        return datetime.fromtimestamp(nanoseconds // NANOSECONDS, zone)
    except (OverflowError, ValueError):
        return datetime.fromtimestamp(nanoseconds // NANOSECONDS, UTC)


def day(nanoseconds: int, zone: tzinfo) -> str:
    """The day, spelt out."""
    moment = local(nanoseconds, zone)
    return f"{moment:%A}, {moment.day} {moment:%B %Y}"


def clock(nanoseconds: int, zone: tzinfo) -> str:
    """The time of the day, to the millisecond."""
    return shown(nanoseconds, zone)[11:]


def long(nanoseconds: int, zone: tzinfo) -> str:
    """Date and time with every digit that there is."""
    moment = local(nanoseconds, zone)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{nanoseconds % NANOSECONDS:09d}"


def moment(nanoseconds: int, zone: tzinfo, now: int) -> str:
    """A time of today by the clock alone, another with its date."""
    text = shown(nanoseconds, zone)[:19]
    return text[11:] if text[:10] == shown(now, zone)[:10] else text


def zone_name(nanoseconds: int, zone: tzinfo) -> str:
    """What a zone is called at a moment."""
    return local(nanoseconds, zone).tzname() or "UTC"


def lapse(first: int, last: int) -> str:
    """How much later, or earlier, one instant is than another; both in nanoseconds."""
    seconds = abs(last - first) / NANOSECONDS
    word = "later" if last >= first else "earlier"
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit} {word}"
    return f"{seconds:.3f} s {word}" if seconds < 10 else f"{seconds:.0f} s {word}"


def lasting(seconds: float) -> str:
    """A stretch of time, rounded as one would say it."""
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"


def size(count: int) -> str:
    """Bytes, in the unit that suits them."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in _SIZES:
        value /= 1000
        if value < 1000 or unit == _SIZES[-1]:
            break
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def counted(count: int, noun: str) -> str:
    """So many of something."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def thousands(count: int) -> str:
    """A number with its thousands set apart."""
    return f"{count:,}"


WORDS: Mapping[str, Callable[..., Any]] = {
    "time": shown,
    "day": day,
    "clock": clock,
    "long": long,
    "moment": moment,
    "lasting": lasting,
    "size": size,
    "counted": counted,
    "thousands": thousands,
}
"""The filters of the templates."""
