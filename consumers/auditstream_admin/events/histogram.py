"""Histogram of events over time, with a bucket width that fits the range."""

from collections.abc import Mapping
from dataclasses import dataclass

from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.timestamp import NANOSECONDS

MAX_BUCKETS = 96
"""More bars are too narrow for a phone."""

_SECONDS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400, 2 * 86_400, 7 * 86_400)
_WIDTHS = tuple(seconds * NANOSECONDS for seconds in _SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramBucket:
    """The events in a part of the range: how many, and how many of them have ``success`` false.

    ``start`` and ``end`` are nanoseconds since the epoch, within the range; ``end`` is exclusive.
    """

    start: int
    end: int
    events: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """The buckets of a range, oldest first, including empty ones.

    Attributes:
        width: Width of a bucket, nanoseconds.
        buckets: The buckets; the range may cut the first and the last one.
        is_exact: Whether each event is counted once. With millions of events, copies are not removed: an event that
            two sinks stored at the same time is counted twice until ClickHouse merges the copies.
        counted_from: If counting took too long: the instant back to which events were counted, else None.
    """

    span: TimeSpan
    width: int
    buckets: tuple[HistogramBucket, ...]
    is_exact: bool
    counted_from: int | None

    @property
    def events(self) -> int:
        """Number of events counted."""
        return sum(bucket.events for bucket in self.buckets)

    @property
    def failed(self) -> int:
        """Number of events with ``success`` false."""
        return sum(bucket.failed for bucket in self.buckets)

    @property
    def peak(self) -> int:
        """Number of events of the fullest bucket."""
        return max((bucket.events for bucket in self.buckets), default=0)


def bucket_width(span: TimeSpan) -> int:
    """The smallest bucket width with at most `MAX_BUCKETS` buckets, nanoseconds."""
    length = span.end - span.start
    longest = -(-length // MAX_BUCKETS // _WIDTHS[-1]) * _WIDTHS[-1]
    return next((width for width in _WIDTHS if length <= width * MAX_BUCKETS), longest)


def first_bucket(span: TimeSpan, width: int, *, offset: int) -> int:
    """Start of the first bucket, at or before the start of the range; all in nanoseconds.

    ``offset`` is the UTC offset of the zone in which daily buckets start at midnight.
    """
    return span.start - (span.start + offset) % width


def fill_buckets(
    span: TimeSpan, width: int, origin: int, counts: Mapping[int, tuple[int, int]]
) -> tuple[HistogramBucket, ...]:
    """All buckets of a range; bucket 0 starts at ``origin``.

    ``counts`` has the numbers of events and of failed events by bucket number; missing buckets are empty.
    """
    buckets = []
    for number in range(-(-(span.end - origin) // width)):
        events, failed = counts.get(number, (0, 0))
        start = max(origin + number * width, span.start)
        end = min(origin + (number + 1) * width, span.end)
        buckets.append(HistogramBucket(start=start, end=end, events=events, failed=failed))
    return tuple(buckets)
