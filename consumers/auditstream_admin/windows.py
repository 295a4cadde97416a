"""Looking for a page in windows of time, so that a common filter reads little and a rare one everything but once."""

from collections.abc import Iterator

from auditstream_admin.time_range import Span
from auditstream_schemas.timestamp import NANOSECONDS

FIRST = 24 * 3600 * NANOSECONDS
"""Nanoseconds of the first window."""
GROWTH = 8
"""How many times longer each window is than the one before: four of them cover a year."""


def windows(span: Span, *, newest_first: bool, first: int = FIRST, growth: int = GROWTH) -> Iterator[Span]:
    """Cut a range into windows that touch each other, ever longer, in the order in which to look."""
    width = first
    start, end = span.start, span.end
    while start < end:
        if newest_first:
            middle = max(start, end - width)
            yield Span(start=middle, end=end)
            end = middle
        else:
            middle = min(end, start + width)
            yield Span(start=start, end=middle)
            start = middle
        width *= growth
