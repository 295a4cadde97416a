"""How many events there were when: buckets of a width that suits the range."""

from collections.abc import Mapping
from dataclasses import dataclass

from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.timestamp import NANOSECONDS

MOST = 96
"""Buckets at most: what a phone can show and a finger can hit."""

_SECONDS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400, 2 * 86_400, 7 * 86_400)
_WIDTHS = tuple(seconds * NANOSECONDS for seconds in _SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramBucket:
    """A stretch of time and what happened in it.

    Attributes:
        start: Its first instant, nanoseconds since the epoch; not before the range.
        end: The first instant after it; not after the range.
        events: How many.
        failed: How many of them did not succeed.
    """

    start: int
    end: int
    events: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """The buckets of a range, oldest first, empty ones too.

    Attributes:
        span: The range.
        width: Nanoseconds of a bucket.
        buckets: Those that lie in the range; the first and the last may be cut by it.
        is_exact: Whether each event counts once. If not, one that two sinks stored at the same moment counts twice
            until ClickHouse merges its copies: where there are millions of events, they are not looked for.
        counted_from: If counting was given up for the time it took: from where on the counts hold.
    """

    span: TimeSpan
    width: int
    buckets: tuple[HistogramBucket, ...]
    is_exact: bool
    counted_from: int | None

    @property
    def events(self) -> int:
        """How many events the range has, as far as it was counted."""
        return sum(bucket.events for bucket in self.buckets)

    @property
    def failed(self) -> int:
        """How many of them did not succeed."""
        return sum(bucket.failed for bucket in self.buckets)

    @property
    def peak(self) -> int:
        """Events of the fullest bucket."""
        return max((bucket.events for bucket in self.buckets), default=0)


def bucket_width(span: TimeSpan) -> int:
    """Nanoseconds of a bucket: the smallest that makes not too many of them."""
    length = span.end - span.start
    return next((width for width in _WIDTHS if length <= width * MOST), -(-length // MOST // _WIDTHS[-1]) * _WIDTHS[-1])


def first_bucket(span: TimeSpan, width: int, *, offset: int) -> int:
    """Where the first bucket of a range begins, not after the range: nanoseconds since the epoch.

    Args:
        span: The range.
        width: Nanoseconds of a bucket.
        offset: Nanoseconds from UTC to a zone in which days are to begin at midnight.
    """
    return span.start - (span.start + offset) % width


def laid_out(
    span: TimeSpan, width: int, origin: int, counts: Mapping[int, tuple[int, int]]
) -> tuple[HistogramBucket, ...]:
    """Lay counts out over a range.

    Args:
        span: The range.
        width: Nanoseconds of a bucket.
        origin: Where the bucket 0 begins.
        counts: Events, and failed ones, by the number of their bucket; those that have none may lack.
    """
    buckets = []
    for number in range(-(-(span.end - origin) // width)):
        events, failed = counts.get(number, (0, 0))
        start = origin + number * width
        buckets.append(
            HistogramBucket(
                start=max(start, span.start), end=min(start + width, span.end), events=events, failed=failed
            )
        )
    return tuple(buckets)
