"""The time range of a page: a preset that ends now, or a custom range. All instants are UTC."""

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
"""Lengths of ranges that end now, by their name in the URL, in nanoseconds. The longest equals the retention."""

DEFAULT_PRESET = "30d"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpan:
    """A half-open range of ``occurred_at``, in nanoseconds since the epoch."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """The time range in the URL.

    Attributes:
        preset: Name of a preset; used if ``start`` is None.
        start: First instant of a custom range, nanoseconds since the epoch; None for the preset.
        end: First instant after a custom range; None for now.
    """

    preset: str = DEFAULT_PRESET
    start: int | None = None
    end: int | None = None

    def span(self, now: int) -> TimeSpan:
        """The instants of the range; ``now`` is in nanoseconds since the epoch."""
        if self.start is None:
            return TimeSpan(start=now - PRESETS[self.preset], end=now)
        end = now if self.end is None else self.end
        return TimeSpan(start=self.start, end=max(end, self.start))

    def parameters(self) -> list[tuple[str, str]]:
        """The URL parameters, in UTC; none for the default."""
        if self.start is None:
            return [] if self.preset == DEFAULT_PRESET else [("range", self.preset)]
        end = [] if self.end is None else [("to", format_timestamp(self.end))]
        return [("from", format_timestamp(self.start)), *end]


def read_range(preset: str | None, start: str | None, end: str | None, zone: tzinfo) -> TimeRange:
    """Read the range from URL parameters. A custom range takes precedence over a preset.

    Args:
        preset: Name of a preset.
        start: A date or an ISO-8601 time; without a zone it is in ``zone``, because HTML date fields send no zone.
        end: As ``start``; None for now.
        zone: Time zone of the page.

    Raises:
        FilterError: The preset is unknown, a time is malformed, or the range is empty.
    """
    if start is None and end is None:
        if preset is not None and preset not in PRESETS:
            raise FilterError("range", f"{preset[:40]!r} is not one of {', '.join(PRESETS)}")
        return TimeRange(preset=preset or DEFAULT_PRESET)
    if start is None:
        raise FilterError("from", "a range with an end needs a start")
    first = _moment("from", start, zone)
    last = None if end is None else _moment("to", end, zone)
    if last is not None and last <= first:
        raise FilterError("to", "the range is empty: give an end that is later than the start")
    return TimeRange(start=first, end=last)


def read_zone(name: str | None) -> tzinfo:
    """The time zone with this IANA name; UTC for None.

    Raises:
        FilterError: The zone is unknown.
    """
    if name is None or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise FilterError("tz", f"{name[:40]!r} is not a time zone: write a name such as Europe/Berlin") from None


def local(nanoseconds: int, zone: tzinfo) -> datetime:
    """An instant in a time zone, to the second; in UTC if the zone's calendar does not reach that far."""
    try:
        return datetime.fromtimestamp(nanoseconds // NANOSECONDS, zone)
    except (OverflowError, ValueError):
        return datetime.fromtimestamp(nanoseconds // NANOSECONDS, UTC)


def date_time(nanoseconds: int, zone: tzinfo) -> str:
    """An instant in a time zone as date, time and milliseconds."""
    return f"{local(nanoseconds, zone):%Y-%m-%d %H:%M:%S}.{nanoseconds % NANOSECONDS // 1_000_000:03d}"


def _moment(field: str, text: str, zone: tzinfo) -> int:
    """Parse a date or time; without a zone of its own it is in ``zone``."""
    try:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return parse_moment(text)
        return from_datetime(moment.replace(tzinfo=zone)) if moment.tzinfo is None else parse_moment(text)
    except (ValueError, OverflowError):
        raise FilterError(
            field, f"{text[:40]!r}: write a date such as 2026-01-31, or a time such as 2026-01-31T09:00Z"
        ) from None
