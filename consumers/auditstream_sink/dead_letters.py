"""Dead letters: refused records in the dead-letter topic, and the limit of their number.

A dead letter has the original bytes of its record, and the reason in headers.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from auditstream_schemas.errors import AuditstreamError, SettingsError, SinkError
from auditstream_sink.batch import RefusedRecord
from auditstream_sink.metrics import Metrics
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
"""Why the record's own headers were left out. They can be read at its source offset likewise."""

MAX_DEAD_LETTER_BYTES = 4 * 1024 * 1024

_KEY_LIMIT = 1000
"""A key of up to so many bytes is kept when its record is left out."""
_ERROR_LIMIT = 2000
"""Characters of an error text: the record alone may nearly reach the broker's size limit."""
_WITHOUT_PAYLOAD = frozenset({"unknown_schema", "incompatible_schema"})
"""Reasons whose error text is about the registry alone; other texts may quote the event."""

_Failure = tuple[KafkaError, RefusedRecord]


class DeadLettersUndeliveredError(AuditstreamError):
    """The broker did not acknowledge all dead letters; sending them again is safe."""


class DeadLetters:
    """Writes to the dead-letter topic.

    If the sink dies before the batch is in the ledger, its dead letters are written again. The second one carries the
    same source partition and offset, so readers drop it.
    """

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._producer = self._new_producer()

    def send(self, refused: Sequence[RefusedRecord], *, topic_id: UUID) -> None:
        """Write dead letters and wait for the broker's acknowledgement, up to ``drain_seconds``.

        Raises DeadLettersUndeliveredError if not all of them were acknowledged.
        """
        unanswered, failures = self._send(refused, topic_id)
        too_large = [record for error, record in failures if error.code() == KafkaError.MSG_SIZE_TOO_LARGE]
        failures = [failure for failure in failures if failure[0].code() != KafkaError.MSG_SIZE_TOO_LARGE]
        if too_large:
            also_unanswered, more_failures = self._send(too_large, topic_id, without_record=True)
            unanswered, failures = unanswered + also_unanswered, failures + more_failures
        if unanswered or failures:
            # The producer may be in a fatal state. A new one sends all dead letters again.
            self._producer.purge()
            self._producer.flush(self._settings.drain_seconds)
            self._producer = self._new_producer()
            topic, number = self._settings.dead_letters, unanswered + len(failures)
            cause = failures[0][0].str() if failures else "no answer in time"
            raise DeadLettersUndeliveredError(f"topic {topic}: {number} undelivered: {cause}")

    def _send(
        self, refused: Sequence[RefusedRecord], topic_id: UUID, *, without_record: bool = False
    ) -> tuple[int, list[_Failure]]:
        """Send dead letters; returns how many were not answered, and which failed."""
        failures: list[_Failure] = []
        for record in refused:
            self._produce(record, topic_id, failures, without_record=without_record)
        return self._producer.flush(self._settings.drain_seconds), failures

    def _produce(
        self, refused: RefusedRecord, topic_id: UUID, failures: list[_Failure], *, without_record: bool
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
            (SOURCE_TOPIC, self._settings.topic.encode()),
            (SOURCE_TOPIC_ID, str(topic_id).encode()),
            (SOURCE_PARTITION, str(record.partition).encode()),
            (SOURCE_OFFSET, str(record.offset).encode()),
        ]
        if own is None:
            headers.append((OMITTED_HEADERS, b"a header's name is not UTF-8"))

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append((error, refused))

        topic = self._settings.dead_letters
        while True:
            try:
                self._producer.produce(topic, key=key, value=value, headers=headers, on_delivery=delivered)
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
                "delivery.timeout.ms": int(self._settings.drain_seconds * 1000),
            }
        )


class DeadLetterLimit:
    """Adds up the refused records among the last ones, batch by batch. Used by one thread at a time.

    The share is that of the whole window, even while fewer records were read: so a few refused records on a quiet
    topic do not stop the sink. A registry that serves a wrong schema does, because every record is refused.

    Raises:
        SettingsError: Limit or window is out of range.
    """

    def __init__(self, settings: SinkSettings, metrics: Metrics) -> None:
        if not 0 <= settings.dead_letter_limit <= 1:
            raise SettingsError(
                f"AUDITSTREAM_DEAD_LETTER_LIMIT: was {settings.dead_letter_limit}; write 0 to 1, where 1 sets no limit"
            )
        if settings.dead_letter_window < 1:
            raise SettingsError(f"AUDITSTREAM_DEAD_LETTER_WINDOW: was {settings.dead_letter_window}; write 1 or more")
        self._limit, self._window = settings.dead_letter_limit, settings.dead_letter_window
        self._metrics = metrics
        self._records = 0
        self._reasons: Counter[str] = Counter()
        self._batches: deque[tuple[int, Counter[str]]] = deque()

    def check(self, records: int, refused: Sequence[RefusedRecord]) -> None:
        """Raise SinkError if too many of the last records were refused, those of this batch included.

        Call it before any record of the batch is dead-lettered or in the ledger. The batch has so many ``records``.
        """
        # A batch leaves the window once that many newer records are in it.
        while self._batches and self._records - self._batches[0][0] + records >= self._window:
            old_records, old_reasons = self._batches.popleft()
            self._records -= old_records
            self._reasons -= old_reasons
        last = self._records + records
        reasons = self._reasons + Counter(record.reason for record in refused)
        share = reasons.total() / max(last, self._window)
        self._metrics["dead_letter_share"].set(share)
        if refused and share > self._limit:
            raise SinkError(self._message(last, reasons, refused))

    def add(self, records: int, refused: Sequence[RefusedRecord]) -> None:
        """Count a batch, now that it is in the ledger."""
        reasons = Counter(record.reason for record in refused)
        self._batches.append((records, reasons))
        self._records += records
        self._reasons += reasons

    def _message(self, last: int, reasons: Counter[str], refused: Sequence[RefusedRecord]) -> str:
        [(reason, number)] = reasons.most_common(1)
        of_reason = [record for record in refused if record.reason == reason] or refused
        first = min(of_reason, key=lambda candidate: (candidate.record.partition, candidate.record.offset))
        error = f" ({first.error})" if first.reason in _WITHOUT_PAYLOAD else ""
        return (
            f"stopped by the dead-letter limit: {reasons.total():,} of the last {last:,} records were refused, more "
            f"than {self._limit:.0%} of {max(last, self._window):,}. The most frequent reason is {reason}, {number:,} "
            f"times; in this batch first at partition {first.record.partition} offset {first.record.offset}{error}. "
            "No record of this batch was dead-lettered or is in the ledger: the next start reads it again. Repair the "
            "cause (registry, producer, clock) and start again; or, if these records are to be dead letters, raise "
            "AUDITSTREAM_DEAD_LETTER_LIMIT (1 sets no limit)"
        )
