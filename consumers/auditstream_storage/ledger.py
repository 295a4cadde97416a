"""What a batch becomes in the books."""

from dataclasses import dataclass

COUNTS = ("read", "stored", "duplicates", "conflicts", "invalid", "expired")
"""The counts of a line; the first is the sum of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One line of the books: a run of offsets, and what became of its records.

    Attributes:
        partition: Kafka partition.
        fencing_time: When the partition was given to this sink, by ClickHouse's clock, nanoseconds since 1970.
        first_offset: First offset of the run.
        last_offset: Last offset of the run, inclusive.
        read: Records read; the sum of the five counts that follow.
        stored: New rows of the event log.
        duplicates: Second deliveries of an id, dropped.
        conflicts: Other content under a known id, dead-lettered.
        invalid: Broken records, dead-lettered.
        expired: Older than the retention on arrival, dead-lettered.
    """

    partition: int
    fencing_time: int
    first_offset: int
    last_offset: int
    read: int
    stored: int
    duplicates: int
    conflicts: int
    invalid: int
    expired: int

    @property
    def next_offset(self) -> int:
        """The offset to commit: one past the last."""
        return self.last_offset + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEnd:
    """Where the books of a partition end.

    Attributes:
        end: The last accounted offset; one less than where reading began, when there are no books yet.
        line_first: First offset of the last line; None when there are no books yet.
    """

    end: int
    line_first: int | None


@dataclass(slots=True)
class Totals:
    """What one run of the sink did.

    Attributes:
        batches: Ledger lines written.
        read: Records read; the sum of the five counts that follow.
        stored: New rows of the event log.
        duplicates: Second deliveries of an id.
        conflicts: Other content under a known id.
        invalid: Broken records.
        expired: Older than the retention.
    """

    batches: int = 0
    read: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    invalid: int = 0
    expired: int = 0

    def add(self, line: LedgerLine) -> None:
        """Count one ledger line."""
        self.batches += 1
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(line, name))
