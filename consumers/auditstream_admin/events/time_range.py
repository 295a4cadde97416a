"""The time range of a page: a preset that ends now, or a custom range; and its parts, which are searched in turn."""

from collections.abc import Iterator
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

FIRST_WINDOW = _DAY
"""Length of the first window, nanoseconds."""
_GROWTH = 8
"""Growth of the window length while there are no results; four windows cover a year."""
_MARGIN = 1.3


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

    ``start`` and ``end`` are dates or ISO-8601 times. Without a zone of their own they are in ``zone``, because HTML
    date fields send no zone. Without an end, the range ends now.

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


class Windows:
    """The adjacent windows of a range, in search order.

    Iterate, and call `widen` after each window: it estimates the length of the next window from the results so far. A
    page of a common filter is complete after the first small window. For a rare filter the windows grow quickly.
    """

    def __init__(self, span: TimeSpan, *, newest_first: bool) -> None:
        self._rest = span
        self._newest_first = newest_first
        self._width = FIRST_WINDOW
        self._searched = 0

    def __iter__(self) -> Iterator[TimeSpan]:
        while self._rest.start < self._rest.end:
            start, end = self._rest.start, self._rest.end
            if self._newest_first:
                window = TimeSpan(start=max(start, end - self._width), end=end)
                self._rest = TimeSpan(start=start, end=window.start)
            else:
                window = TimeSpan(start=start, end=min(end, start + self._width))
                self._rest = TimeSpan(start=window.end, end=end)
            self._searched += window.end - window.start
            yield window

    @property
    def is_done(self) -> bool:
        """Whether all windows were returned."""
        return self._rest.start >= self._rest.end

    def widen(self, *, results: int, missing: int) -> None:
        """Choose the length of the next window from the results in all windows so far, and those still missing."""
        if results == 0:
            self._width *= _GROWTH
        else:
            self._width = max(self._width, int(missing * self._searched / results * _MARGIN))


def doubling(span: TimeSpan, *, first: int) -> Iterator[TimeSpan]:
    """Adjacent windows of a range, newest first, each twice as long as the previous one."""
    width, end = first, span.end
    while span.start < end:
        window = TimeSpan(start=max(span.start, end - width), end=end)
        yield window
        end, width = window.start, width * 2


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
