"""The ledger up to a watermark, as the manifest of an export has it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from auditstream_export.query.watermark import Position, Watermark
from auditstream_schemas.errors import ExportError
from auditstream_storage import COUNTS, LedgerTotals, checked_lines

Ask = Callable[[str, dict[str, object]], Sequence[Sequence[object]]]
"""Runs a statement with its parameters and returns its rows."""

_SUMS = ", ".join(f"sumIf({name}, is_within)" for name in COUNTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLedger(LedgerTotals):
    """The ledger of one partition, up to the watermark.

    Attributes:
        topic: Name of the topic.
        topic_id: The id that the broker gave it.
        partition: Kafka partition.
        first_offset: First offset in the ledger.
        last_offset: Last offset in the ledger up to the watermark, inclusive.
        breaks: Lines that do not begin where the line before ends, or whose counts do not add up.
        last_at: Time at which the last of the lines was written, ISO-8601.
    """

    topic: str
    topic_id: UUID
    partition: int
    first_offset: int
    last_offset: int
    breaks: int
    last_at: str

    @property
    def is_balanced(self) -> bool:
        """Whether every offset is in one line and every record has one status, as far as the ledger alone shows."""
        return not self.breaks and self.adds_up(self.last_offset - self.first_offset + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerExtract:
    """The ledger up to a watermark.

    Attributes:
        watermark: The watermark.
        partitions: One for each partition that has a line.
    """

    watermark: Watermark
    partitions: tuple[PartitionLedger, ...]

    @property
    def is_balanced(self) -> bool:
        """Whether the ledger of every partition balances and ends at the watermark."""
        watermark = {(end.topic_id, end.partition): end.last_offset for end in self.watermark.positions}
        ends = {(ledger.topic_id, ledger.partition): ledger.last_offset for ledger in self.partitions}
        return ends == watermark and all(ledger.is_balanced for ledger in self.partitions)

    def to_dict(self) -> dict[str, object]:
        """All of it, for the manifest."""
        partitions = [
            {**asdict(ledger), "topic_id": str(ledger.topic_id), "balanced": ledger.is_balanced}
            for ledger in self.partitions
        ]
        return {"balanced": self.is_balanced, "partitions": partitions}


def read_ledger(ask: Ask, watermark: Watermark | None) -> LedgerExtract:
    """Read the ledger up to a watermark, or to its end.

    Raises:
        ExportError: The ledger ends before the watermark.
    """
    within = "true" if watermark is None else watermark.at_or_below("topic_id", "partition", "last_offset")
    rows = ask(_sql(within), {} if watermark is None else watermark.parameters())
    partitions = tuple(ledger for ledger in map(_partition, rows) if ledger.batches)
    if watermark is None:
        positions = (
            Position(
                topic=ledger.topic,
                topic_id=ledger.topic_id,
                partition=ledger.partition,
                last_offset=ledger.last_offset,
            )
            for ledger in partitions
        )
        return LedgerExtract(watermark=Watermark(positions=tuple(sorted(positions))), partitions=partitions)
    ends = {(str(row[1]), int(str(row[2]))): int(str(row[-1])) for row in rows}
    for position in watermark.positions:
        end = ends.get((str(position.topic_id), position.partition), -1)
        if end < position.last_offset:
            raise ExportError(
                f"the watermark is at offset {position.last_offset} of {position.topic}[{position.partition}], topic "
                f"id {position.topic_id}, but the ledger ends at {end if end >= 0 else 'none'}: is it another "
                "database's, or was this one restored? nothing was exported"
            )
    return LedgerExtract(watermark=watermark, partitions=partitions)


def _sql(within: str) -> str:
    # Lines beyond the watermark are left out, but the last of them shows that the ledger reaches the watermark.
    return f"""
        SELECT topic, topic_id, partition, minIf(first_offset, is_within), maxIf(last_offset, is_within),
            countIf(is_within), {_SUMS}, countIf(is_within AND (is_break OR is_misfit)),
            formatDateTime(maxIf(written_at, is_within), '%Y-%m-%dT%H:%i:%SZ', 'UTC'), max(last_offset)
        FROM (SELECT *, {within} AS is_within FROM ({checked_lines()}))
        GROUP BY topic, topic_id, partition ORDER BY topic, topic_id, partition"""


def _partition(row: Sequence[object]) -> PartitionLedger:
    topic, topic_id, partition, first, last, batches, *sums = row[:-3]
    breaks, last_at, _ = row[-3:]
    return PartitionLedger(
        topic=str(topic),
        topic_id=UUID(str(topic_id)),
        partition=int(str(partition)),
        first_offset=int(str(first)),
        last_offset=int(str(last)),
        batches=int(str(batches)),
        breaks=int(str(breaks)),
        last_at=str(last_at),
        **{name: int(str(count)) for name, count in zip(COUNTS, sums, strict=True)},
    )
