"""Refused records, kept: the original bytes on the dead-letter topic, with the reason in headers."""

import hashlib
from collections.abc import Sequence
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
OMITTED = "auditstream.omitted"
"""Set where the broker refuses a letter for its size: how long the record is, and its SHA-256. The record itself
is at its source offset as long as the topic keeps it; its headers, and a long key, too."""
OMITTED_HEADERS = "auditstream.omitted.headers"
"""Set where the record's own headers cannot be read, and why. They are at its source offset likewise."""

MAX_LETTER_BYTES = 4 * 1024 * 1024

_KEY_LIMIT = 1000
"""Bytes of a key that stays where the record itself has to be left out."""

_ERROR_LIMIT = 2000
"""Characters of an error text: the record itself may fill the broker's limit nearly to the brim."""


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
        self._settings = settings
        self._producer = self._new_producer()

    def send(self, letters: Sequence[Refused], *, topic_id: UUID) -> None:
        """Write the letters and wait for the broker to have them, up to ``drain_seconds``.

        Raises:
            DeadLettersUndeliveredError: Not all of them are surely there.
        """
        failures: list[tuple[KafkaError, Refused]] = []
        for letter in letters:
            self._produce(letter, topic_id, failures)
        left = self._producer.flush(self._timeout)
        too_large = [letter for error, letter in failures if error.code() == KafkaError.MSG_SIZE_TOO_LARGE]
        others = [error for error, _letter in failures if error.code() != KafkaError.MSG_SIZE_TOO_LARGE]
        again: list[tuple[KafkaError, Refused]] = []
        for letter in too_large:
            self._produce(letter, topic_id, again, without_record=True)
        left += self._producer.flush(self._timeout)
        others += [error for error, _letter in again]
        if left or others:
            # A producer may be broken for good; what it holds is sent again by the next.
            self._producer.purge()
            self._producer.flush(self._timeout)
            self._producer = self._new_producer()
            cause = others[0].str() if others else "no answer in time"
            raise DeadLettersUndeliveredError(f"topic {self._topic}: {left + len(others)} undelivered: {cause}")

    def _produce(
        self,
        letter: Refused,
        topic_id: UUID,
        failures: list[tuple[KafkaError, Refused]],
        *,
        without_record: bool = False,
    ) -> None:
        record = letter.record
        key, value, own = record.key, record.value, record.headers
        if without_record:
            digest = hashlib.sha256(value or b"").hexdigest()
            own = [(OMITTED, f"{len(value or b'')} bytes, SHA-256 {digest}".encode())]
            key, value = key if len(key or b"") <= _KEY_LIMIT else None, None
        headers: list[tuple[str, str | bytes | None]] = [
            *(own or ()),
            (REASON, letter.reason.encode()),
            (ERROR, letter.error[:_ERROR_LIMIT].encode("utf-8", "replace")),
            (SOURCE_TOPIC, self._source.encode()),
            (SOURCE_TOPIC_ID, str(topic_id).encode()),
            (SOURCE_PARTITION, str(record.partition).encode()),
            (SOURCE_OFFSET, str(record.offset).encode()),
        ]
        if own is None:
            headers.append((OMITTED_HEADERS, b"a header's name is not UTF-8"))

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append((error, letter))

        while True:
            try:
                self._producer.produce(
                    self._topic,
                    key=key,
                    value=value,
                    headers=headers,
                    on_delivery=delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                failures.append((error.args[0], letter))
                return
            else:
                self._producer.poll(0)
                return

    def _new_producer(self) -> Producer:
        return Producer(
            {
                **self._settings.librdkafka_client("dead-letters"),
                "enable.idempotence": True,
                "acks": "all",
                # Headers come on top of a record that the broker took; the topic allows as much.
                "message.max.bytes": MAX_LETTER_BYTES,
                "delivery.timeout.ms": int(self._timeout * 1000),
            }
        )
