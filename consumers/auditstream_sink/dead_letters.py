"""Writes refused records to the dead-letter topic: the original bytes, with the reason in headers."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from auditstream_schemas.errors import AuditstreamError
from auditstream_sink.batch import RefusedRecord
from auditstream_sink.settings import SinkSettings

REASON = "auditstream.reason"
ERROR = "auditstream.error"
SOURCE_TOPIC = "auditstream.source.topic"
SOURCE_TOPIC_ID = "auditstream.source.topic_id"
SOURCE_PARTITION = "auditstream.source.partition"
SOURCE_OFFSET = "auditstream.source.offset"
OMITTED = "auditstream.omitted"
"""Length and SHA-256 of a record that was left out, because the broker refused the dead letter for its size. The record
with its key and headers can be read at its source offset as long as the topic retains it."""
OMITTED_HEADERS = "auditstream.omitted.headers"
"""Why the record's own headers were left out: the client cannot read them. They are at its source offset likewise."""

MAX_DEAD_LETTER_BYTES = 4 * 1024 * 1024

_KEY_LIMIT = 1000
"""A key of up to so many bytes is kept when its record is left out."""

_ERROR_LIMIT = 2000
"""Characters of an error text: the record alone may nearly reach the broker's size limit."""


class DeadLettersUndeliveredError(AuditstreamError):
    """The broker did not acknowledge all dead letters; sending them again is safe."""


class DeadLetters:
    """Writes to the dead-letter topic.

    If the sink dies before the batch is in the ledger, its dead letters are written again. The second one carries the
    same source partition and offset, so readers drop it.
    """

    def __init__(self, settings: SinkSettings) -> None:
        self._topic = settings.dead_letters
        self._source = settings.topic
        self._timeout = settings.drain_seconds
        self._settings = settings
        self._producer = self._new_producer()

    def send(self, refused: Sequence[RefusedRecord], *, topic_id: UUID) -> None:
        """Write dead letters and wait for the broker's acknowledgement, up to ``drain_seconds``.

        Raises:
            DeadLettersUndeliveredError: Not all of them were acknowledged.
        """
        failures: list[tuple[KafkaError, RefusedRecord]] = []
        for record in refused:
            self._produce(record, topic_id, failures)
        unanswered = self._producer.flush(self._timeout)
        too_large = [record for error, record in failures if error.code() == KafkaError.MSG_SIZE_TOO_LARGE]
        errors = [error for error, _record in failures if error.code() != KafkaError.MSG_SIZE_TOO_LARGE]
        failures_without_record: list[tuple[KafkaError, RefusedRecord]] = []
        for record in too_large:
            self._produce(record, topic_id, failures_without_record, without_record=True)
        unanswered += self._producer.flush(self._timeout)
        errors += [error for error, _record in failures_without_record]
        if unanswered or errors:
            # The producer may be in a fatal state. A new one sends all dead letters again.
            self._producer.purge()
            self._producer.flush(self._timeout)
            self._producer = self._new_producer()
            cause = errors[0].str() if errors else "no answer in time"
            raise DeadLettersUndeliveredError(f"topic {self._topic}: {unanswered + len(errors)} undelivered: {cause}")

    def _produce(
        self,
        refused: RefusedRecord,
        topic_id: UUID,
        failures: list[tuple[KafkaError, RefusedRecord]],
        *,
        without_record: bool = False,
    ) -> None:
        record = refused.record
        key, value, own = record.key, record.value, record.headers
        if without_record:
            digest = hashlib.sha256(value or b"").hexdigest()
            own = [(OMITTED, f"{len(value or b'')} bytes, SHA-256 {digest}".encode())]
            key, value = key if len(key or b"") <= _KEY_LIMIT else None, None
        headers: list[tuple[str, str | bytes | None]] = [
            *(own or ()),
            (REASON, refused.reason.encode()),
            (ERROR, refused.error[:_ERROR_LIMIT].encode("utf-8", "replace")),
            (SOURCE_TOPIC, self._source.encode()),
            (SOURCE_TOPIC_ID, str(topic_id).encode()),
            (SOURCE_PARTITION, str(record.partition).encode()),
            (SOURCE_OFFSET, str(record.offset).encode()),
        ]
        if own is None:
            headers.append((OMITTED_HEADERS, b"a header's name is not UTF-8"))

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append((error, refused))

        while True:
            try:
                self._producer.produce(self._topic, key=key, value=value, headers=headers, on_delivery=delivered)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                failures.append((error.args[0], refused))
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
                # A dead letter is larger than its record by our headers; the topic allows the same size.
                "message.max.bytes": MAX_DEAD_LETTER_BYTES,
                "delivery.timeout.ms": int(self._timeout * 1000),
            }
        )
