"""Cuts a time range into windows that are searched one after the other.

A page of a common filter is complete after the first small window. For a rare filter the windows grow quickly.
"""

from collections.abc import Iterator

from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.timestamp import NANOSECONDS

FIRST = 24 * 3600 * NANOSECONDS
"""Length of the first window, nanoseconds."""
_GROWTH = 8
"""Growth of the window length while nothing is found; four windows cover a year."""
_MARGIN = 1.3


class Windows:
    """The adjacent windows of a range, in search order.

    Iterate, and call `widen` after each window: it estimates the length of the next window from the results so far.
    """

    def __init__(self, span: TimeSpan, *, newest_first: bool) -> None:
        self._rest = span
        self._newest_first = newest_first
        self._width = FIRST
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

    def widen(self, *, found: int, missing: int) -> None:
        """Choose the length of the next window from the results in all windows so far, and those still missing."""
        if found == 0:
            self._width *= _GROWTH
        else:
            self._width = max(self._width, int(missing * self._searched / found * _MARGIN))


def doubling(span: TimeSpan, *, first: int) -> Iterator[TimeSpan]:
    """Adjacent windows of a range, newest first, each twice as long as the previous one."""
    width, end = first, span.end
    while span.start < end:
        window = TimeSpan(start=max(span.start, end - width), end=end)
        yield window
        end, width = window.start, width * 2
