"""The end of the ledger: how complete the page is."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from auditstream_storage import checked_lines

SECONDS = 15
"""How long an answer is reused: the ledger has a line for every batch, and every page needs the answer."""

SQL = (
    "SELECT toUnixTimestamp64Milli(max(written_at)), count(), countIf(is_break), countIf(is_misfit)"
    f" FROM ({checked_lines()})"
)
"""Time of the latest line, lines, lines that do not follow the line before, and lines that do not add up.

The answer tells nothing about any scope's events. `auditstream verify` checks the rows, too.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """The end of the ledger, and whether the ledger balances.

    Attributes:
        until: Time of the latest line, milliseconds since the epoch; None if the ledger is empty.
        faults: Lines that do not add up, or do not follow the line before.
    """

    until: int | None
    faults: int

    @property
    def is_balanced(self) -> bool:
        """Whether every record up to the last line has one status in the ledger."""
        return self.until is not None and not self.faults


class CachedCompleteness:
    """Queries again when the answer is older than `SECONDS`. Safe to share between threads."""

    def __init__(self, ask: Callable[[], Completeness], clock: Callable[[], float]) -> None:
        """Query nothing yet.

        Args:
            ask: Queries ClickHouse; may raise.
            clock: Seconds that only grow.
        """
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._answer: Completeness | None = None
        self._until = 0.0

    def get(self) -> Completeness:
        """The answer; blocks on ClickHouse if the last one is too old."""
        with self._lock:
            if self._answer is None or self._clock() >= self._until:
                self._answer = self._ask()
                self._until = self._clock() + SECONDS
            return self._answer
