"""The state at the end of a schedule: topic, visible rows, dead letters, ledger."""

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
    """A row that readers of the view ``events`` see.

    Attributes:
        identity: The event's id.
        digest: Of its content.
        topic_id: Topic of its record.
        partition: Partition of its record.
        offset: Offset of its record.
    """

    identity: str
    digest: str
    topic_id: str
    partition: int
    offset: int

    @property
    def coordinates(self) -> tuple[str, int, int]:
        """Topic id, partition, offset."""
        return (self.topic_id, self.partition, self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The state of all parts.

    Attributes:
        topic_id: Id of the current topic.
        topics: The records of each topic by topic id, deleted topics included.
        rows: All rows that readers see.
        raw: Rows of the table, those that wait for a merge included.
        dead_letters: Reason of each dead letter, by topic id, partition and offset.
        dead_letter_numbers: Number of the record in each dead letter.
        ledgers: Result of `auditstream verify`.
        findings: Result of `auditstream reconcile`.
    """

    topic_id: str
    topics: Mapping[str, Sequence[RecordPosition]]
    rows: Sequence[Row]
    raw: int
    dead_letters: Mapping[tuple[str, int, int], str]
    dead_letter_numbers: Mapping[tuple[str, int, int], int]
    ledgers: Sequence[TopicCheck]
    findings: ReconcileReport


def gather(
    settings: SinkSettings, client: Client, topic_id: str, past: Mapping[str, Sequence[RecordPosition]]
) -> Evidence:
    """Read the state of all parts. Blocks on broker and ClickHouse.

    Args:
        settings: Topic, dead letters, database and group, without the proxies.
        client: A connection to ClickHouse, without the proxy.
        topic_id: Id of the current topic.
        past: The records of deleted topics.
    """
    database = settings.clickhouse_database
    rows = client.query(
        f"SELECT toString(id), lower(hex(MD5({CANONICAL}))), toString(kafka_topic_id), kafka_partition, kafka_offset "
        f"FROM {database}.events"
    ).result_rows
    [(raw,)] = client.query(f"SELECT count() FROM {database}.event_log").result_rows
    dead_letters = list(read_dead_letters(settings))
    return Evidence(
        topic_id=topic_id,
        topics={**past, topic_id: read_topic(settings)},
        rows=[Row(*row) for row in rows],
        raw=int(raw),
        dead_letters={dead_letter.coordinates: dead_letter.reason for dead_letter in dead_letters},
        dead_letter_numbers={
            dead_letter.coordinates: int(dict(dead_letter.headers).get(NUMBER) or -1) for dead_letter in dead_letters
        },
        ledgers=verify(client, database, settings, complete=True),
        findings=reconcile(client, database),
    )


def read_topic(kafka: KafkaSettings) -> list[RecordPosition]:
    """All records of a topic, in the order of offsets. Blocks on the broker.

    Raises:
        TimeoutError: The broker does not answer.
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
        records: list[RecordPosition] = []
        until = time.monotonic() + _BROKER_SECONDS
        while unread:
            for message in consumer.consume(10_000, 0.1):
                until = time.monotonic() + _BROKER_SECONDS
                error = message.error()
                if error is None:
                    records.append(_position(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition() or 0)
            if time.monotonic() > until:
                raise TimeoutError(f"topic {kafka.topic} cannot be read")
        return sorted(records)
    finally:
        consumer.close()


def _position(message: Message) -> RecordPosition:
    headers: dict[str, bytes] = dict(message.headers() or ())  # type: ignore[arg-type]
    return RecordPosition(message.partition() or 0, message.offset() or 0, int(headers[NUMBER]))
