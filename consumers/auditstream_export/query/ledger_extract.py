"""The ledger up to a watermark, as the manifest of an export has it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from auditstream_export.query.watermark import Position, Watermark
from auditstream_schemas.errors import ExportError
from auditstream_storage import COUNTS, LedgerTotals, checked_lines

Ask = Callable[[str, dict[str, object]], Sequence[Sequence[Any]]]
"""Runs a statement with its parameters and returns its rows."""

# Lines beyond the watermark are not counted. But the last of them shows that the ledger reaches the watermark.
_CELLS = {
    "topic": "topic",
    "topic_id": "topic_id",
    "partition": "partition",
    "first_offset": "minIf(first_offset, is_within)",
    "last_offset": "maxIf(last_offset, is_within)",
    "batches": "countIf(is_within)",
    **{name: f"sumIf({name}, is_within)" for name in COUNTS},
    "breaks": "countIf(is_within AND (is_break OR is_misfit))",
    "last_at": "formatDateTime(maxIf(written_at, is_within), '%Y-%m-%dT%H:%i:%SZ', 'UTC')",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLedger(LedgerTotals):
    """The ledger of one partition, up to the watermark.

    Attributes:
        topic_id: Id of the topic, assigned by the broker.
        last_offset: Last offset in the ledger up to the watermark, inclusive.
        breaks: Number of lines that do not begin where the previous line ends, or whose counts do not add up.
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
    def end(self) -> Position:
        """The last line's last offset, as a position of a watermark."""
        return Position(
            topic=self.topic, topic_id=self.topic_id, partition=self.partition, last_offset=self.last_offset
        )

    @property
    def is_balanced(self) -> bool:
        """Whether, by the ledger alone, each offset is in one line and each record has one status."""
        return not self.breaks and self.adds_up(self.last_offset - self.first_offset + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerExtract:
    """The ledger up to a watermark, with one entry for each partition that has a line."""

    watermark: Watermark
    partitions: tuple[PartitionLedger, ...]

    @property
    def is_balanced(self) -> bool:
        """Whether the ledger of every partition balances and ends at the watermark."""
        watermark = {(pos.topic_id, pos.partition): pos.last_offset for pos in self.watermark.positions}
        ends = {(ledger.topic_id, ledger.partition): ledger.last_offset for ledger in self.partitions}
        return ends == watermark and all(ledger.is_balanced for ledger in self.partitions)

    def to_dict(self) -> dict[str, object]:
        """The ledger, for the manifest."""
        partitions = [
            {**asdict(ledger), "topic_id": str(ledger.topic_id), "balanced": ledger.is_balanced}
            for ledger in self.partitions
        ]
        return {"balanced": self.is_balanced, "partitions": partitions}


def read_ledger(ask: Ask, watermark: Watermark | None) -> LedgerExtract:
    """Read the ledger up to a watermark, or to its end. Raises ExportError if it ends before the watermark."""
    within = "true" if watermark is None else watermark.at_or_below("topic_id", "partition", "last_offset")
    sql = (
        f"SELECT {', '.join(_CELLS.values())}, max(last_offset) FROM (SELECT *, {within} AS is_within"
        f" FROM ({checked_lines()})) GROUP BY topic, topic_id, partition ORDER BY topic, topic_id, partition"
    )
    rows = ask(sql, {} if watermark is None else watermark.parameters())
    ledgers = (PartitionLedger(**dict(zip(_CELLS, row[:-1], strict=True))) for row in rows)
    partitions = tuple(ledger for ledger in ledgers if ledger.batches)
    if watermark is None:
        positions = tuple(sorted(ledger.end for ledger in partitions))
        return LedgerExtract(watermark=Watermark(positions=positions), partitions=partitions)
    last_offsets = {(row[1], row[2]): row[-1] for row in rows}
    for position in watermark.positions:
        end = last_offsets.get((position.topic_id, position.partition), -1)
        if end < position.last_offset:
            raise ExportError(
                f"the watermark is at offset {position.last_offset} of {position.topic}[{position.partition}], topic "
                f"id {position.topic_id}, but the ledger ends at {end if end >= 0 else 'none'}: is it another "
                "database's, or was this one restored? nothing was exported"
            )
    return LedgerExtract(watermark=watermark, partitions=partitions)
