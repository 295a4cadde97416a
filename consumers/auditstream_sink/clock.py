"""Time, passed in: the sink never asks the machine by itself."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the sink needs to know about time."""

    def now(self) -> datetime:
        """The time of day, with its zone: goes into rows and books."""

    def monotonic(self) -> float:
        """Seconds that never run backwards: for ages and deadlines."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time of day in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment in the past."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the thread."""
        time.sleep(max(0.0, seconds))
