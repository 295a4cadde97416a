"""Log lines about a lasting state, limited to one per interval."""

import logging
import time
from collections.abc import Callable


class ThrottledLogger:
    """Logs one line of each kind per interval, with the number of lines suppressed since the last one.

    Safe to share between threads; two threads may at worst log the same line.
    """

    def __init__(
        self, logger: logging.Logger, *, interval: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with nothing logged; ``interval`` and ``clock`` are in seconds."""
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._next: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def log(self, level: int, kind: str, text: str) -> None:
        """Log ``text``, unless a line of this kind was logged less than an interval ago."""
        now = self._clock()
        if now < self._next.get(kind, now):
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return
        self._next[kind] = now + self._interval
        suppressed = self._suppressed.pop(kind, 0)
        self._logger.log(level, "%s%s", text, f" ({suppressed} more since the last such line)" if suppressed else "")
