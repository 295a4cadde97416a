"""Reading the dead-letter topic: one letter for each refused record, however often it was written."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from auditstream_schemas.errors import OperationError
from auditstream_sink import SinkSettings
from auditstream_sink.dead_letters import (
    ERROR,
    REASON,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    SOURCE_TOPIC_ID,
)

_BROKER_SECONDS = 10
_CONSUME_AT_MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A refused record.

    Attributes:
        reason: A short word to filter by.
        error: What was wrong.
        topic: Where the record came from.
        topic_id: Id of that topic; differs when it was created anew under the same name.
        partition: Kafka partition of the record.
        offset: Kafka offset of the record.
        written_at: When the sink wrote the letter, UTC.
        key: The record's key, as it came.
        value: The record's bytes, as they came.
    """

    reason: str
    error: str
    topic: str
    topic_id: str
    partition: int
    offset: int
    written_at: datetime
    key: bytes
    value: bytes


def read_letters(settings: SinkSettings) -> Iterator[Letter]:
    """All letters from the topic's start to its end; blocks on the broker.

    A sink that dies between writing letters and writing its books writes them again: the second of the
    same source offset is left out.

    Raises:
        OperationError: The topic or the broker is not there.
    """
    seen = set()
    for message in _messages(settings):
        letter = _letter(message)
        place = (letter.topic_id, letter.partition, letter.offset)
        if place not in seen:
            seen.add(place)
            yield letter


def _messages(settings: SinkSettings) -> Iterator[Message]:
    topic = settings.dead_letters
    consumer = Consumer(
        {
            **settings.librdkafka_client("dlq"),
            "group.id": "auditstream-dlq-reader",  # required by the client; nothing is committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        found = consumer.list_topics(topic, timeout=_BROKER_SECONDS).topics[topic]
        if found.error is not None:
            raise OperationError(f"topic {topic}: {found.error.str()}; run `auditstream topics`")
        unread = set(found.partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in unread])
        silent_until = time.monotonic() + _BROKER_SECONDS
        while unread:
            for message in consumer.consume(_CONSUME_AT_MOST, 0.2):
                silent_until = time.monotonic() + _BROKER_SECONDS
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise OperationError(f"topic {topic}: {error.str()}")
            if time.monotonic() > silent_until:
                raise OperationError(f"topic {topic}: no answer from {settings.kafka_bootstrap_servers}")
    except KafkaException as error:
        raise OperationError(f"no broker at {settings.kafka_bootstrap_servers}: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _letter(message: Message) -> Letter:
    # Ours come last: a record may carry headers of the same name.
    headers = dict(message.headers() or ())

    def text(name: str) -> str:
        value = headers.get(name)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""

    key, value = message.key(), message.value()
    return Letter(
        reason=text(REASON),
        error=text(ERROR),
        topic=text(SOURCE_TOPIC),
        topic_id=text(SOURCE_TOPIC_ID),
        partition=int(text(SOURCE_PARTITION) or -1),
        offset=int(text(SOURCE_OFFSET) or -1),
        written_at=datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC),
        key=key if isinstance(key, bytes) else b"",
        value=value if isinstance(value, bytes) else b"",
    )
