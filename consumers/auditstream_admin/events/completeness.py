"""How far the books go: what the page says about its own completeness."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = 15
"""How long an answer is kept: the books have a line for every batch, and every page asks."""

SQL = """
SELECT toUnixTimestamp64Milli(max(until)), count(), sum(breaks), sum(faults) FROM (
    SELECT max(written_at) AS until,
        countIf(reached >= 0 AND first_offset != reached + 1) AS breaks,
        countIf(read != stored + duplicates + conflicts + invalid + expired
            OR read + lost > toUInt64(last_offset - first_offset + 1)) AS faults
    FROM (
        SELECT *, lagInFrame(last_offset, 1, toInt64(-1)) OVER (
            PARTITION BY topic, topic_id, partition ORDER BY first_offset
            ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS reached
        FROM {database:Identifier}.ledger FINAL
    )
    GROUP BY topic, topic_id, partition
)
"""
"""Latest line of the books, partitions, lines that do not follow the one before, and lines that do not add up.

Says nothing of any scope's events. `auditstream verify` looks at the rows, too.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """How far the books go, and whether they balance.

    Attributes:
        until: Time of the latest line, milliseconds since the epoch; None if there are no books.
        faults: Lines that do not add up, or do not follow the one before.
    """

    until: int | None
    faults: int

    @property
    def is_balanced(self) -> bool:
        """Whether every record up to the last line is accounted for."""
        return self.until is not None and not self.faults


class Cached:
    """Asks again when an answer is older than `SECONDS`. Safe to share between threads."""

    def __init__(self, ask: Callable[[], Completeness], clock: Callable[[], float]) -> None:
        """Nothing is asked yet.

        Args:
            ask: Asks ClickHouse; may raise.
            clock: Seconds that only grow.
        """
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Completeness | None = None
        self._until = 0.0

    def get(self) -> Completeness:
        """The answer; blocks on ClickHouse if it is due."""
        with self._lock:
            if self._found is None or self._clock() >= self._until:
                self._found = self._ask()
                self._until = self._clock() + SECONDS
            return self._found
