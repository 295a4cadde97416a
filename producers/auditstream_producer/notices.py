"""Log lines about a state that lasts: said when it begins, then now and then."""

import logging
import time
from collections.abc import Callable


class ThrottledLogger:
    """Lets one line of a kind through per interval, with the number of those it stands for.

    Safe to share between threads: at worst two of them say the same thing.
    """

    def __init__(
        self, logger: logging.Logger, *, interval: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare.

        Args:
            logger: Where the lines go.
            interval: Seconds between two lines of one kind.
            clock: Seconds, ever rising.
        """
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._next: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def say(self, level: int, kind: str, text: str) -> None:
        """Log ``text``, unless a line of this kind was logged less than an interval ago."""
        now = self._clock()
        if now < self._next.get(kind, now):
            self._held[kind] = self._held.get(kind, 0) + 1
            return
        self._next[kind] = now + self._interval
        held = self._held.pop(kind, 0)
        self._logger.log(level, "%s%s", text, f" ({held} more since the last such line)" if held else "")
