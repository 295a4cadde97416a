"""Time, handed in: no class of the sink reads the machine's clock by itself."""

import time
from datetime import UTC, datetime


class Clock:
    """The machine's clock; tests hand in another."""

    def now(self) -> datetime:
        """The time of day in UTC: for rows and the ledger."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never run backwards: for ages and deadlines."""
        return time.monotonic()
