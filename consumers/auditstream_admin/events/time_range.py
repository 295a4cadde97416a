"""The range of time that a page shows: a preset that ends now, or a range of one's own. Data is UTC."""

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from auditstream_schemas.errors import FilterError
from auditstream_schemas.timestamp import NANOSECONDS, format_timestamp, from_datetime, parse_moment

_MINUTE = 60 * NANOSECONDS
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR

PRESETS = {
    "15m": 15 * _MINUTE,
    "1h": _HOUR,
    "24h": _DAY,
    "7d": 7 * _DAY,
    "30d": 30 * _DAY,
    "90d": 90 * _DAY,
    "12mo": 366 * _DAY,
}
"""Ranges that end now, by their name in the URL: nanoseconds. The longest is what the retention keeps."""

DEFAULT_PRESET = "30d"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpan:
    """A half-open range of ``occurred_at``.

    Attributes:
        start: First instant, nanoseconds since the epoch.
        end: First instant after it.
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """The range as the URL has it.

    Attributes:
        preset: Name of a preset, which holds unless there is a range of one's own.
        start: First instant of one's own range, nanoseconds since the epoch; None if there is none.
        end: First instant after it; None for now.
    """

    preset: str = DEFAULT_PRESET
    start: int | None = None
    end: int | None = None

    def span(self, now: int) -> TimeSpan:
        """The instants, at a moment that is given in nanoseconds since the epoch."""
        if self.start is None:
            return TimeSpan(start=now - PRESETS[self.preset], end=now)
        end = now if self.end is None else self.end
        return TimeSpan(start=self.start, end=max(end, self.start))

    def parameters(self) -> list[tuple[str, str]]:
        """As the URL has it, always in UTC; nothing for the default."""
        if self.start is None:
            return [] if self.preset == DEFAULT_PRESET else [("range", self.preset)]
        found = [("from", format_timestamp(self.start))]
        return found if self.end is None else [*found, ("to", format_timestamp(self.end))]


def read_range(preset: str | None, start: str | None, end: str | None, zone: tzinfo) -> TimeRange:
    """Read the range from the URL. A limit of one's own takes precedence over a preset.

    Args:
        preset: Its name.
        start: A date, or ISO-8601; without a zone it is in ``zone``, as a date field of a form gives it.
        end: The same; None for now.
        zone: The zone in which the page shows times.

    Raises:
        FilterError: There is no such preset, a limit cannot be read, or the range is empty.
    """
    if start is None and end is None:
        if preset is not None and preset not in PRESETS:
            raise FilterError("range", f"{preset[:40]!r} is none of {', '.join(PRESETS)}")
        return TimeRange(preset=preset or DEFAULT_PRESET)
    if start is None:
        raise FilterError("from", "a range that has an end needs a beginning")
    first = _moment("from", start, zone)
    last = None if end is None else _moment("to", end, zone)
    if last is not None and last <= first:
        raise FilterError("to", "the range is empty: its end must be later than its beginning")
    return TimeRange(start=first, end=last)


def read_zone(name: str | None) -> tzinfo:
    """The zone in which times are shown, by its IANA name; UTC if none is given.

    Raises:
        FilterError: There is no such zone.
    """
    if name is None or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise FilterError("tz", f"{name[:40]!r} is no time zone such as Europe/Berlin") from None


def shown(nanoseconds: int, zone: tzinfo) -> str:
    """An instant for people: date, time and milliseconds in a zone; UTC where the zone's calendar ends."""
    try:
        moment = datetime.fromtimestamp(nanoseconds // NANOSECONDS, zone)
    except (OverflowError, ValueError):
        moment = datetime.fromtimestamp(nanoseconds // NANOSECONDS, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{nanoseconds % NANOSECONDS // 1_000_000:03d}"


def _moment(field: str, text: str, zone: tzinfo) -> int:
    try:
        return _local(text, zone)
    except (ValueError, OverflowError):
        raise FilterError(
            field, f"{text[:40]!r}: write a date such as 2026-01-31, or a time such as 2026-01-31T09:00Z"
        ) from None


def _local(text: str, zone: tzinfo) -> int:
    """A date or a time without a zone is one of the page's zone; one with a zone is what it says."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return parse_moment(text)
    if moment.tzinfo is None:
        return from_datetime(moment.replace(tzinfo=zone))
    return parse_moment(text)
