"""What is there when a schedule is over: topic, visible rows, dead letters, books."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from auditstream_ops.dead_letters.dead_letter import read_dead_letters
from auditstream_ops.ledger.reconcile import ReconcileReport, reconcile
from auditstream_ops.ledger.verify import TopicCheck, verify
from auditstream_schemas.settings import KafkaSettings
from auditstream_sink import SinkSettings
from tests.fault.load import CANONICAL, NUMBER

_BROKER_SECONDS = 30


class RecordPosition(NamedTuple):
    """A record on a topic.

    Attributes:
        partition: Kafka partition.
        offset: Kafka offset.
        number: Number of the record.
    """

    partition: int
    offset: int
    number: int


class Row(NamedTuple):
    """A row that readers see.

    Attributes:
        identity: The event's id.
        digest: Of its content.
        topic_id: Where it came from.
        partition: Likewise.
        offset: Likewise.
    """

    identity: str
    digest: str
    topic_id: str
    partition: int
    offset: int

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic id, partition, offset."""
        return (self.topic_id, self.partition, self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found.

    Attributes:
        topic_id: Of the topic as it is now.
        topics: What is, or was, on each topic, by topic id.
        rows: All rows that readers see.
        raw: Rows of the table, those that wait for a merge included.
        letters: Reason of each dead letter, by topic id, partition and offset.
        letter_numbers: Number of the record that each letter holds.
        books: What `auditstream verify` finds.
        findings: What `auditstream reconcile` finds.
    """

    topic_id: str
    topics: Mapping[str, Sequence[RecordPosition]]
    rows: Sequence[Row]
    raw: int
    letters: Mapping[tuple[str, int, int], str]
    letter_numbers: Mapping[tuple[str, int, int], int]
    books: Sequence[TopicCheck]
    findings: ReconcileReport


def gather(
    settings: SinkSettings, client: Client, topic_id: str, past: Mapping[str, Sequence[RecordPosition]]
) -> Evidence:
    """Look at everything. Blocks on broker and ClickHouse.

    Args:
        settings: Topic, dead letters, database and group; the servers themselves, no proxy.
        client: ClickHouse itself.
        topic_id: Of the topic as it is now.
        past: What was on topics that were deleted.
    """
    database = settings.clickhouse_database
    rows = client.query(
        f"SELECT toString(id), lower(hex(MD5({CANONICAL}))), toString(kafka_topic_id), kafka_partition, kafka_offset "
        f"FROM {database}.events"
    ).result_rows
    [(raw,)] = client.query(f"SELECT count() FROM {database}.event_log").result_rows
    letters = list(read_dead_letters(settings))
    return Evidence(
        topic_id=topic_id,
        topics={**past, topic_id: read_topic(settings)},
        rows=[Row(*row) for row in rows],
        raw=int(raw),
        letters={letter.coordinates: letter.reason for letter in letters},
        letter_numbers={letter.coordinates: int(dict(letter.headers).get(NUMBER) or -1) for letter in letters},
        books=verify(client, database, settings, complete=True),
        findings=reconcile(client, database),
    )


def read_topic(kafka: KafkaSettings) -> list[RecordPosition]:
    """Everything on a topic, in the order of offsets. Blocks on the broker.

    Raises:
        TimeoutError: It does not answer.
    """
    consumer = Consumer(
        {
            **kafka.librdkafka_client("evidence"),
            "group.id": f"evidence-{uuid4().hex}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
        }
    )
    try:
        unread = set(consumer.list_topics(kafka.topic, timeout=_BROKER_SECONDS).topics[kafka.topic].partitions)
        consumer.assign([TopicPartition(kafka.topic, partition, 0) for partition in unread])
        found: list[RecordPosition] = []
        until = time.monotonic() + _BROKER_SECONDS
        while unread:
            for message in consumer.consume(10_000, 0.1):
                until = time.monotonic() + _BROKER_SECONDS
                error = message.error()
                if error is None:
                    found.append(_place(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition() or 0)
            if time.monotonic() > until:
                raise TimeoutError(f"topic {kafka.topic} cannot be read")
        return sorted(found)
    finally:
        consumer.close()


def _place(message: Message) -> RecordPosition:
    headers: dict[str, bytes] = dict(message.headers() or ())  # type: ignore[arg-type]
    return RecordPosition(message.partition() or 0, message.offset() or 0, int(headers[NUMBER]))
