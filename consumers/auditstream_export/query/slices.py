"""Cutting an export into slices of time that ClickHouse can sort with little memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ROWS = 500_000
"""Events of a slice: sorted in memory in a second."""
MOST = 50
"""About so many slices at most. Each reads every granule that its time touches, and where there are many
scopes that is most of the month; so huge exports get larger slices, which ClickHouse sorts on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A stretch of time.

    Attributes:
        start: First instant, nanoseconds since the epoch.
        end: First instant after it, nanoseconds since the epoch.
        rows: Events in it when the export began.
    """

    start: int
    end: int
    rows: int


def cut(start: int, end: int, hours: Sequence[tuple[int, int]], *, rows: int = ROWS) -> Iterator[Slice]:
    """Cut the range into slices that touch each other, at full hours; an hour is never divided.

    Args:
        start: First instant of the range, nanoseconds since the epoch.
        end: First instant after it.
        hours: First nanosecond and number of events of every hour that has any, in order.
        rows: Events of a slice, unless there are very many.
    """
    rows = max(rows, sum(found for _, found in hours) // MOST)
    held = 0
    for hour, found in hours:
        if held and held + found > rows:
            yield Slice(start=start, end=hour, rows=held)
            start, held = hour, 0
        held += found
    if held:
        yield Slice(start=start, end=end, rows=held)
