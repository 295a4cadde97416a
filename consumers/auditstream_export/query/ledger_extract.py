"""The ledger's books as an export's manifest has them: what became of every offset up to the watermark."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from auditstream_export.query.watermark import Position, Watermark
from auditstream_schemas.errors import ExportError

Ask = Callable[[str, dict[str, object]], Sequence[Sequence[object]]]
"""Runs a statement with its parameters and returns its rows."""

_NUMBERS = (
    *("partition", "first_offset", "last_offset", "batches"),
    *("read", "stored", "duplicates", "conflicts", "invalid", "expired", "lost"),
)

# Lines in order: each begins where those before it end. Those beyond the watermark are none of the export's,
# but tell that the books go on.
_SQL = """
    SELECT topic, topic_id, partition,
        minIf(first, is_within), maxIf(last, is_within), countIf(is_within),
        sumIf(read, is_within), sumIf(stored, is_within), sumIf(duplicates, is_within), sumIf(conflicts, is_within),
        sumIf(invalid, is_within), sumIf(expired, is_within), sumIf(lost, is_within),
        countIf(is_within AND NOT is_first AND before + 1 != first) AS breaks,
        formatDateTime(maxIf(written_at, is_within), '%Y-%m-%dT%H:%i:%SZ', 'UTC') AS last_at,
        max(last) AS reached
    FROM (
        SELECT topic, topic_id, partition, first_offset AS first, last_offset AS last, read, stored, duplicates,
            conflicts, invalid, expired, lost, written_at,
            max(last_offset) OVER above AS before, count() OVER above = 0 AS is_first,
            {within} AS is_within
        FROM {{database:Identifier}}.ledger FINAL
        WINDOW above AS (PARTITION BY topic, topic_id, partition ORDER BY first_offset, last_offset
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ) GROUP BY topic, topic_id, partition ORDER BY topic, topic_id, partition"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLedger:
    """The books of one partition, up to the watermark.

    Attributes:
        topic: Name of the topic.
        topic_id: The id that the broker gave it.
        partition: Kafka partition.
        first_offset: Where the books begin.
        last_offset: The last offset that is accounted for.
        batches: Ledger lines.
        read: Records read.
        stored: New rows of the event log.
        duplicates: Second deliveries of an id.
        conflicts: Other content under a known id, dead-lettered.
        invalid: Broken records, dead-lettered.
        expired: Older than the retention on arrival, dead-lettered.
        lost: Offsets deleted by the broker before any sink read them, as a person entered.
        breaks: Lines that do not begin where the one before ends.
        last_at: When the last of the lines was written, ISO-8601.
    """

    topic: str
    topic_id: UUID
    partition: int
    first_offset: int
    last_offset: int
    batches: int
    read: int
    stored: int
    duplicates: int
    conflicts: int
    invalid: int
    expired: int
    lost: int
    breaks: int
    last_at: str

    @property
    def is_balanced(self) -> bool:
        """Whether every offset is in one line and every record counted, as far as the ledger alone tells."""
        counted = self.stored + self.duplicates + self.conflicts + self.invalid + self.expired
        spanned = self.last_offset - self.first_offset + 1
        return self.read == counted and not self.breaks and self.read + self.lost <= spanned


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerExtract:
    """The ledger up to a watermark.

    Attributes:
        watermark: Up to where.
        partitions: One for each partition that has books.
    """

    watermark: Watermark
    partitions: tuple[PartitionLedger, ...]

    @property
    def is_balanced(self) -> bool:
        """Whether every partition is, up to just the watermark."""
        ends = {(each.topic_id, each.partition): each.last_offset for each in self.watermark.positions}
        found = {(each.topic_id, each.partition): each.last_offset for each in self.partitions}
        return found == ends and all(each.is_balanced for each in self.partitions)

    def to_dict(self) -> dict[str, object]:
        """All of it, for the manifest."""
        partitions = [
            {**asdict(each), "topic_id": str(each.topic_id), "balanced": each.is_balanced} for each in self.partitions
        ]
        return {"balanced": self.is_balanced, "partitions": partitions}


def read_ledger(ask: Ask, watermark: Watermark | None) -> LedgerExtract:
    """Read the ledger up to a watermark, or to its end.

    Raises:
        ExportError: The ledger does not reach the watermark.
    """
    within = "true" if watermark is None else watermark.at_or_below("topic_id", "partition", "last_offset")
    rows = ask(_SQL.format(within=within), {} if watermark is None else watermark.parameters())
    found = (_partition(row) for row in rows)
    partitions = tuple(each for each in found if each.batches)
    if watermark is None:
        positions = (
            Position(topic=each.topic, topic_id=each.topic_id, partition=each.partition, last_offset=each.last_offset)
            for each in partitions
        )
        return LedgerExtract(watermark=Watermark(positions=tuple(sorted(positions))), partitions=partitions)
    reached = {(str(row[1]), int(str(row[2]))): int(str(row[-1])) for row in rows}
    for each in watermark.positions:
        end = reached.get((str(each.topic_id), each.partition), -1)
        if end < each.last_offset:
            raise ExportError(
                f"the watermark is at offset {each.last_offset} of {each.topic}[{each.partition}], topic id "
                f"{each.topic_id}, but the ledger ends at {end if end >= 0 else 'none'}: is it another "
                "database's, or was this one restored? nothing was exported"
            )
    return LedgerExtract(watermark=watermark, partitions=partitions)


def _partition(row: Sequence[object]) -> PartitionLedger:
    numbers = dict(zip(_NUMBERS, (int(str(value)) for value in row[2:13]), strict=True))
    return PartitionLedger(
        topic=str(row[0]), topic_id=UUID(str(row[1])), breaks=int(str(row[13])), last_at=str(row[14]), **numbers
    )
