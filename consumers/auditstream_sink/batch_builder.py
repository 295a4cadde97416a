"""Fills batches with fetched records: of each partition in order, none skipped, none twice."""

from collections.abc import Callable

from confluent_kafka import KafkaError, Message

from auditstream_schemas.codec import split
from auditstream_schemas.errors import WireFormatError
from auditstream_sink.assignment import Assignment
from auditstream_sink.batch import Batch
from auditstream_sink.client import raise_if_fatal
from auditstream_sink.clock import Clock
from auditstream_sink.settings import SinkSettings
from auditstream_sink.writer_schemas import UnusableSchema, WriterSchema

_MAX_FETCH = 10_000
_EARLY_SHARE = 0.25
"""Share of a full batch that is written while no other batch is being written, so that the first rows come sooner."""
_PREFIX = 5
"""Bytes of a message in front of its body."""


class BatchBuilder:
    """Fills one batch after another, at present ``batch``; advances the assignment with each record.

    ``schema_of`` looks up the writer schema of an id, and may block. It returns None if the record has to wait, or if
    the assignment has changed during the call.
    """

    def __init__(
        self,
        settings: SinkSettings,
        clock: Clock,
        assignment: Assignment,
        schema_of: Callable[[int], WriterSchema | UnusableSchema | None],
    ) -> None:
        self._settings, self._clock = settings, clock
        self._assignment, self._schema_of = assignment, schema_of
        self._last_prefix = b""
        self._last_schema: WriterSchema | None = None
        self.batch = Batch(opened=clock.monotonic())

    @property
    def free_rows(self) -> int:
        """How many records to fetch next."""
        return max(1, min(_MAX_FETCH, self._settings.flush_rows - self.batch.rows))

    def is_due(self, *, is_busy: bool) -> bool:
        """Whether to write the batch. While another batch is being written (``is_busy``), only a full one is."""
        fullness = max(self.batch.rows / self._settings.flush_rows, self.batch.size / self._settings.flush_bytes)
        if is_busy or self.batch.is_empty:
            return fullness >= 1
        is_old = self._clock.monotonic() - self.batch.opened >= self._settings.flush_seconds
        return is_old or fullness >= _EARLY_SHARE

    def swap(self) -> Batch:
        """Begin another batch and return the one that was filled."""
        batch, self.batch = self.batch, Batch(opened=self._clock.monotonic())
        return batch

    def add(self, record: Message) -> bool:
        """Add a fetched record to the batch; False if neither it nor those behind it can be added now.

        Raises SinkError if the record is a broker error that a person has to fix.
        """
        error, partition, offset = record.error(), record.partition(), record.offset()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise_if_fatal(error, self._settings.topic)
            return True
        if partition is None or offset is None:
            return True
        assignment = self._assignment
        next_offsets = assignment.next_offsets
        expected = next_offsets.get(partition)
        if expected is None or offset < expected:
            # Revoked since the fetch; or delivered twice: librdkafka has done so after an incremental assignment.
            return True
        if self.batch.is_empty:
            self.batch.opened = self._clock.monotonic()
        if error is not None:
            assignment.at_end.add(partition)
            if offset > expected:
                # The offsets in front of the end have control records or aborted ones. They must be in the ledger:
                # after the broker has deleted them they would look like records that no sink read.
                self.batch.extend(partition, offset - 1, expected=expected, fencing_time=assignment.fencing_time)
                next_offsets[partition] = offset
            return True
        value = record.value()
        data = value if isinstance(value, bytes) else b""
        if data[:_PREFIX] == self._last_prefix and self._last_schema is not None:
            self.batch.add(record, self._last_schema, partition, offset, data[_PREFIX:])
        elif not self._add_by_schema(record, partition, offset, data):
            return False
        self.batch.count(record, partition, offset, len(data), expected=expected, fencing_time=assignment.fencing_time)
        next_offsets[partition] = offset + 1
        return True

    def _add_by_schema(self, record: Message, partition: int, offset: int, data: bytes) -> bool:
        """Add a record whose writer schema is not that of the record before."""
        try:
            schema_id, body = split(data)
        except WireFormatError as error:
            self.batch.refuse(record, partition, offset, reason="wire_format", error=str(error))
            return True
        schema = self._schema_of(schema_id)
        if schema is None:
            return False
        if isinstance(schema, UnusableSchema):
            self.batch.refuse(record, partition, offset, reason=schema.reason, error=schema.error)
        else:
            self._last_prefix, self._last_schema = data[:_PREFIX], schema
            self.batch.add(record, schema, partition, offset, body)
        return True
