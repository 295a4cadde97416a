"""Offsets that the broker deleted before any sink read them, and the ledger lines by which a person accepts the loss.

A sink never skips such offsets by itself. After a ledger line with the count `lost` it reads on behind them.
`auditstream verify` reports them from then on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from clickhouse_connect.driver.client import Client

from auditstream_ops.clickhouse import clickhouse_errors
from auditstream_ops.ledger.ledger_reader import LedgerReader
from auditstream_ops.ledger.topic_reader import TopicReader
from auditstream_schemas.settings import ClickHouseSettings, KafkaSettings


@dataclass(frozen=True, kw_only=True)
class LossSettings(KafkaSettings, ClickHouseSettings):
    """The topic, and the database of its ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedRange:
    """Offsets between the end of the ledger and the first offset that the broker still has, both inclusive."""

    topic_id: UUID
    partition: int
    first_offset: int
    last_offset: int

    @property
    def offsets(self) -> int:
        """Number of offsets."""
        return self.last_offset - self.first_offset + 1


def deleted_unread(client: Client, settings: LossSettings) -> list[DeletedRange]:
    """The ranges at which the sink stops, by partition. Blocks on ClickHouse and on the broker.

    Raises:
        OperationError: The topic does not exist, or the broker or ClickHouse is not reachable.
    """
    with TopicReader(settings) as reader:
        topic_id = reader.required_topic_id()
        totals = LedgerReader(client, settings.clickhouse_database, settings.topic, topic_id).totals()
        lows = {partition: low for partition, (low, _) in reader.watermarks().items()}
    return [
        DeletedRange(
            topic_id=topic_id, partition=partition, first_offset=ledger.last_offset + 1, last_offset=lows[partition] - 1
        )
        for partition, ledger in sorted(totals.items())
        if lows.get(partition, 0) > ledger.last_offset + 1
    ]


def accept(client: Client, settings: LossSettings, ranges: Sequence[DeletedRange], *, by: str, why: str) -> None:
    """Enter offsets into the ledger as lost. Blocks on ClickHouse; entering them again changes nothing.

    The fencing time of these lines is 0, older than any sink's: if a sink did read the offsets, its line stays.

    Raises:
        OperationError: ClickHouse fails.
    """
    for lost in ranges:
        with clickhouse_errors():
            client.command(
                f"INSERT INTO {settings.clickhouse_database}.ledger (topic, topic_id, partition, first_offset, "
                "last_offset, lost, instance, fencing_time, written_at, reason) "
                "SELECT {topic:String}, {topic_id:UUID}, {partition:Int32}, {first:Int64}, {last:Int64}, "
                "{lost:UInt64}, {by:String}, 0, now64(3), {reason:String}",
                parameters={
                    "topic": settings.topic,
                    "topic_id": str(lost.topic_id),
                    "partition": lost.partition,
                    "first": lost.first_offset,
                    "last": lost.last_offset,
                    "lost": lost.offsets,
                    "by": by,
                    "reason": why,
                },
                settings={"async_insert": 0},
            )
