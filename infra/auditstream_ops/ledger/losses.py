"""Offsets that the broker deleted before any sink read them, and a person's word for it in the books.

The sink never passes over such offsets by itself. A line of the ledger that reads nothing and says `lost`
lets it go on, and tells of them for ever.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from auditstream_ops.ledger.ledger_reader import LedgerReader
from auditstream_ops.ledger.topic_reader import TopicReader
from auditstream_schemas.errors import OperationError
from auditstream_schemas.settings import ClickHouseSettings, KafkaSettings
from auditstream_storage import error_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSettings(KafkaSettings, ClickHouseSettings):
    """Which topic, and where its books are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """Offsets between the end of the books and the first that the broker still has.

    Attributes:
        topic_id: Id of the topic.
        partition: Kafka partition.
        first_offset: First of them.
        last_offset: Last of them, inclusive.
    """

    topic_id: UUID
    partition: int
    first_offset: int
    last_offset: int

    @property
    def offsets(self) -> int:
        """How many there are."""
        return self.last_offset - self.first_offset + 1


def unread_and_gone(client: Client, settings: LossSettings) -> list[Unread]:
    """What stops the sink, by partition. Blocks on ClickHouse and on the broker.

    Raises:
        OperationError: The topic, the broker or ClickHouse is not there.
    """
    with TopicReader(settings) as reader:
        topic_id = reader.topic_id()
        if topic_id is None:
            raise OperationError(f"there is no topic {settings.topic}; run `auditstream topics`")
        books = LedgerReader(client, settings.clickhouse_database, settings.topic, topic_id).totals()
        begins = {partition: low for partition, (low, _) in reader.watermarks().items()}
    return [
        Unread(
            topic_id=topic_id,
            partition=partition,
            first_offset=totals.last_offset + 1,
            last_offset=begins[partition] - 1,
        )
        for partition, totals in sorted(books.items())
        if begins.get(partition, 0) > totals.last_offset + 1
    ]


def accept(client: Client, settings: LossSettings, unread: Sequence[Unread], *, by: str, why: str) -> None:
    """Enter offsets into the books as lost. Blocks on ClickHouse; entering them again changes nothing.

    Epoch 0 is older than any sink's: should one have read the offsets after all, its line stays.

    Raises:
        OperationError: ClickHouse fails.
    """
    for each in unread:
        try:
            client.command(
                f"INSERT INTO {settings.clickhouse_database}.ledger (topic, topic_id, partition, first_offset, "
                "last_offset, lost, instance, fencing_time, written_at, reason) "
                "SELECT {topic:String}, {topic_id:UUID}, {partition:Int32}, {first:Int64}, {last:Int64}, "
                "{lost:UInt64}, {by:String}, 0, now64(3), {reason:String}",
                parameters={
                    "topic": settings.topic,
                    "topic_id": str(each.topic_id),
                    "partition": each.partition,
                    "first": each.first_offset,
                    "last": each.last_offset,
                    "lost": each.offsets,
                    "by": by,
                    "reason": why,
                },
                settings={"async_insert": 0},
            )
        except ClickHouseError as error:
            raise OperationError(f"ClickHouse: {error_text(error)}") from error
