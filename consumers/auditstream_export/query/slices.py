"""Cuts an export into slices of time that ClickHouse can sort with little memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ROWS = 500_000
"""Events per slice; ClickHouse sorts them in memory within a second."""
MAX_SLICES = 50
"""Approximate limit. Each slice reads every granule that its time touches, and with many scopes that is most of the
month. So huge exports get larger slices, which ClickHouse sorts on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A range of time.

    Attributes:
        start: First instant, nanoseconds since the epoch.
        end: First instant after the range, nanoseconds since the epoch.
        rows: Number of events when the export began.
    """

    start: int
    end: int
    rows: int


def cut(start: int, end: int, hours: Sequence[tuple[int, int]], *, rows: int = ROWS) -> Iterator[Slice]:
    """Cut a range at full hours into slices without gaps. An hour is never divided.

    ``hours`` has first nanosecond and number of events of each hour that has any, in order. A slice has up to ``rows``
    events, or more if that would make too many slices.
    """
    rows = max(rows, sum(count for _, count in hours) // MAX_SLICES)
    slice_rows = 0
    for hour, count in hours:
        if slice_rows and slice_rows + count > rows:
            yield Slice(start=start, end=hour, rows=slice_rows)
            start, slice_rows = hour, 0
        slice_rows += count
    if slice_rows:
        yield Slice(start=start, end=end, rows=slice_rows)
