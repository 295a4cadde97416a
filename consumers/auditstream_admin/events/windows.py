"""Looking for a page in windows of time, so that a common filter reads little and a rare one no more than it must."""

from collections.abc import Iterator

from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.timestamp import NANOSECONDS

FIRST = 24 * 3600 * NANOSECONDS
"""Nanoseconds of the first window."""
_GROWTH = 8
"""How many times longer a window is than the one before while nothing is found: four of them cover a year."""
_MARGIN = 1.3


class Windows:
    """The windows of a range, which touch each other, in the order in which to look.

    Iterate, and say after each window how much was found: the next is as long as it should take to find the rest.
    """

    def __init__(self, span: TimeSpan, *, newest_first: bool, first: int = FIRST) -> None:
        self._left = span
        self._newest_first = newest_first
        self._width = first
        self._searched = 0

    def __iter__(self) -> Iterator[TimeSpan]:
        while self._left.start < self._left.end:
            start, end = self._left.start, self._left.end
            if self._newest_first:
                window = TimeSpan(start=max(start, end - self._width), end=end)
                self._left = TimeSpan(start=start, end=window.start)
            else:
                window = TimeSpan(start=start, end=min(end, start + self._width))
                self._left = TimeSpan(start=window.end, end=end)
            self._searched += window.end - window.start
            yield window

    @property
    def is_done(self) -> bool:
        """Whether no window is left."""
        return self._left.start >= self._left.end

    def widen(self, *, found: int, missing: int) -> None:
        """Choose the next window's length.

        Args:
            found: How much was found in all windows so far.
            missing: How much more is wanted.
        """
        if found == 0:
            self._width *= _GROWTH
        else:
            self._width = max(self._width, int(missing * self._searched / found * _MARGIN))


def doubling(span: TimeSpan, *, first: int) -> Iterator[TimeSpan]:
    """Cut a range into windows that touch each other, newest first, each twice as long as the one before."""
    width, end = first, span.end
    while span.start < end:
        window = TimeSpan(start=max(span.start, end - width), end=end)
        yield window
        end, width = window.start, width * 2
