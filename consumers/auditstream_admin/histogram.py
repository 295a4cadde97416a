"""How many events there were when: buckets of a width that suits the range."""

from collections.abc import Sequence
from dataclasses import dataclass

from auditstream_admin.time_range import Span
from auditstream_schemas.timestamp import NANOSECONDS

MOST = 96
"""Buckets at most: what a phone can show and a finger can hit."""

_SECONDS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400, 2 * 86_400, 7 * 86_400)
_WIDTHS = tuple(seconds * NANOSECONDS for seconds in _SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
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
    """

    span: Span
    width: int
    buckets: tuple[Bucket, ...]

    @property
    def events(self) -> int:
        """How many events the range has."""
        return sum(bucket.events for bucket in self.buckets)

    @property
    def failed(self) -> int:
        """How many of them did not succeed."""
        return sum(bucket.failed for bucket in self.buckets)

    @property
    def peak(self) -> int:
        """Events of the fullest bucket."""
        return max((bucket.events for bucket in self.buckets), default=0)


def bucket_width(span: Span) -> int:
    """Nanoseconds of a bucket: the smallest that makes not too many of them."""
    length = span.end - span.start
    return next((width for width in _WIDTHS if length <= width * MOST), -(-length // MOST // _WIDTHS[-1]) * _WIDTHS[-1])


def histogram(span: Span, width: int, counts: Sequence[tuple[int, int, int]], *, offset: int = 0) -> Histogram:
    """Lay counts out over a range.

    Args:
        span: The range.
        width: Nanoseconds of a bucket.
        counts: First nanosecond of each bucket that has events, how many, how many failed.
        offset: Nanoseconds by which the buckets are shifted, so that days begin at midnight in a zone.
    """
    found = {start: (events, failed) for start, events, failed in counts}
    buckets = []
    start = span.start - (span.start + offset) % width
    while start < span.end:
        events, failed = found.get(start, (0, 0))
        end = start + width
        buckets.append(Bucket(start=max(start, span.start), end=min(end, span.end), events=events, failed=failed))
        start = end
    return Histogram(span=span, width=width, buckets=tuple(buckets))
