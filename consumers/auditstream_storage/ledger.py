"""The ledger: its counts, and the rule that they add up, in Python and in SQL."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCounts:
    """The counts of a range of offsets.

    Attributes:
        read: Records read.
        stored: New rows of the event log.
        duplicates: Second deliveries of an id, dropped.
        conflicts: Records with other content under a known id, dead-lettered.
        invalid: Broken records, dead-lettered.
        expired: Records older than the retention on arrival, dead-lettered.
        lost: Offsets that the broker deleted before any sink read them, as a person recorded.
    """

    read: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    invalid: int = 0
    expired: int = 0
    lost: int = 0

    def adds_up(self, offsets: int) -> bool:
        """Whether each record read has one status, and there are not more records than ``offsets``.

        Some offsets have no record: transactions write control records.
        """
        recorded = self.stored + self.duplicates + self.conflicts + self.invalid + self.expired
        return self.read == recorded and self.read + self.lost <= offsets


COUNTS = tuple(field.name for field in fields(LedgerCounts))
"""The names of the counts, which are columns of the table ``ledger``."""


def adds_up(*, first: str = "first_offset", last: str = "last_offset", unstored: str | None = None) -> str:
    """The SQL condition of `LedgerCounts.adds_up` for one line of the ledger, with ``read``, ``stored`` and ``lost``.

    ``first`` and ``last`` are columns. ``unstored`` is the SQL of the number of records that were not stored; None for
    the sum of their columns.
    """
    unstored = unstored or "duplicates + conflicts + invalid + expired"
    return f"({last} >= {first} AND read = stored + {unstored} AND read + lost <= {last} - {first} + 1)"


def checked_lines() -> str:
    """The SQL of all ledger lines with two more columns. Parameter: database.

    ``is_break``: the line does not begin where the previous lines of its partition end. ``is_misfit``: its counts do
    not add up.
    """
    return f"""
        SELECT *, count() OVER previous > 0 AND max(last_offset) OVER previous + 1 != first_offset AS is_break,
            NOT {adds_up()} AS is_misfit
        FROM {{database:Identifier}}.ledger FINAL
        WINDOW previous AS (PARTITION BY topic, topic_id, partition ORDER BY first_offset, last_offset
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine(LedgerCounts):
    """One line of the ledger: a range of offsets of a partition, and the counts of its records.

    Attributes:
        partition: Kafka partition.
        fencing_time: When the sink positioned the partition, by ClickHouse's clock, nanoseconds since 1970.
        first_offset: First offset of the range.
        last_offset: Last offset of the range, inclusive.
    """

    partition: int
    fencing_time: int
    first_offset: int
    last_offset: int

    @property
    def next_offset(self) -> int:
        """The offset to commit: one past the last."""
        return self.last_offset + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEnd:
    """The end of a partition's ledger.

    Attributes:
        end: The last offset in the ledger; if the ledger has no line, the one before the first to be read.
        line_first: First offset of the last line; None if the ledger has no line.
    """

    end: int
    line_first: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTotals(LedgerCounts):
    """The sums of several ledger lines; ``batches`` is the number of lines."""

    batches: int = 0

    def with_line(self, line: LedgerCounts) -> "LedgerTotals":
        """A copy that includes one more line."""
        sums = {name: getattr(self, name) + getattr(line, name) for name in COUNTS}
        return LedgerTotals(**sums, batches=self.batches + 1)
