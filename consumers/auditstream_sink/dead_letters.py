"""Refused records, kept: the original bytes on the dead-letter topic, with the reason in headers."""

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from auditstream_schemas.errors import AuditstreamError
from auditstream_sink.batch import Refused
from auditstream_sink.settings import SinkSettings

REASON = "auditstream.reason"
ERROR = "auditstream.error"
SOURCE_TOPIC = "auditstream.source.topic"
SOURCE_TOPIC_ID = "auditstream.source.topic_id"
SOURCE_PARTITION = "auditstream.source.partition"
SOURCE_OFFSET = "auditstream.source.offset"

_ERROR_LIMIT = 2000
"""Characters of an error text: the record itself may fill the broker's limit nearly to the brim."""

_logger = logging.getLogger("auditstream.sink")


class DeadLettersUndeliveredError(AuditstreamError):
    """The broker did not take all dead letters; sending them again is safe."""


class DeadLetters:
    """Writes to the dead-letter topic.

    A letter written twice (the sink died before it could account for the batch) carries the same source
    partition and offset; readers drop the second by these.
    """

    def __init__(self, settings: SinkSettings) -> None:
        self._topic = settings.dead_letters
        self._source = settings.topic
        self._timeout = settings.drain_seconds
        self._producer = Producer(
            {
                **settings.librdkafka_client("dead-letters"),
                "enable.idempotence": True,
                "acks": "all",
                # Headers come on top of a record that the broker took.
                "message.max.bytes": 2_000_000,
                "delivery.timeout.ms": int(settings.drain_seconds * 1000),
            }
        )

    def send(self, letters: Sequence[Refused], *, topic_id: UUID) -> None:
        """Write the letters and wait for the broker to have them, up to ``drain_seconds``.

        Raises:
            DeadLettersUndeliveredError: Not all of them are surely there.
        """
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        for letter in letters:
            self._produce(letter, topic_id, delivered)
        left = self._producer.flush(self._timeout)
        if left or failures:
            self._producer.purge()
            self._producer.flush(self._timeout)
            cause = failures[0].str() if failures else "no answer in time"
            raise DeadLettersUndeliveredError(f"topic {self._topic}: {left + len(failures)} undelivered: {cause}")

    def _produce(self, letter: Refused, topic_id: UUID, delivered: Any) -> None:
        record: Any = letter.record
        headers = [
            *(record.headers() or ()),
            (REASON, letter.reason.encode()),
            (ERROR, letter.error[:_ERROR_LIMIT].encode()),
            (SOURCE_TOPIC, self._source.encode()),
            (SOURCE_TOPIC_ID, str(topic_id).encode()),
            (SOURCE_PARTITION, str(record.partition()).encode()),
            (SOURCE_OFFSET, str(record.offset()).encode()),
        ]
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    key=record.key(),
                    value=record.value(),
                    headers=headers,
                    on_delivery=delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise DeadLettersUndeliveredError(f"topic {self._topic}: {error.args[0].str()}") from error
            else:
                self._producer.poll(0)
                return
