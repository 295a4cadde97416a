"""What a poll gave, into the batch in hand: each partition's records in order, none left out, none twice."""

from collections.abc import Callable

from confluent_kafka import KafkaError, Message

from auditstream_schemas.codec import split
from auditstream_schemas.errors import WireFormatError
from auditstream_sink.batch import Batch
from auditstream_sink.client import raise_if_fatal
from auditstream_sink.clock import Clock
from auditstream_sink.settings import SinkSettings
from auditstream_sink.writers import UnusableSchema, WriterSchema

_CONSUME_AT_MOST = 10_000
_BEGIN_WITH = 0.25
"""Share of a full batch that is written while there is nothing else to do: the first rows come to ClickHouse sooner."""
_PREFIX = 5
"""Bytes of a message in front of its body."""


class BatchBuilder:
    """Fills one batch after another.

    Args:
        settings: How large a batch may grow.
        clock: Tells its age.
        schema_of: Gives the writer schema of an id, or why it is of no use; may block. None where the record is
            to wait, or the partitions are not what they were when it was asked.

    Attributes:
        batch: The batch in hand.
        next: Where each partition that is read goes on.
        at_end: Partitions that were read to their end.
        fencing_time: When the partitions were given to this sink.
    """

    def __init__(
        self,
        settings: SinkSettings,
        clock: Clock,
        schema_of: Callable[[int], WriterSchema | UnusableSchema | None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._schema_of = schema_of
        self._last_prefix = b""
        self._last_schema: WriterSchema | None = None
        self.next: dict[int, int] = {}
        self.at_end: set[int] = set()
        self.fencing_time = 0
        self.batch = Batch(opened=clock.monotonic())

    @property
    def room(self) -> int:
        """How many records to ask for."""
        return max(1, min(_CONSUME_AT_MOST, self._settings.flush_rows - self.batch.rows))

    @property
    def is_at_end(self) -> bool:
        """Whether all partitions were read to their end; not so while there are none."""
        return bool(self.next) and self.at_end.issuperset(self.next)

    def is_due(self, *, is_busy: bool) -> bool:
        """Whether to write the batch. One that is not full grows on while another is being settled."""
        fullness = max(self.batch.rows / self._settings.flush_rows, self.batch.bytes / self._settings.flush_bytes)
        if is_busy or self.batch.is_empty:
            return fullness >= 1
        is_old = self._clock.monotonic() - self.batch.opened >= self._settings.flush_seconds
        return is_old or fullness >= _BEGIN_WITH

    def swap(self) -> Batch:
        """The batch in hand; another one is begun."""
        batch, self.batch = self.batch, Batch(opened=self._clock.monotonic())
        return batch

    def take(self, record: Message) -> bool:
        """Take a record into the batch; False if neither it nor those behind it can be taken now.

        Raises:
            SinkError: It is an error that no poll will overcome.
        """
        error, partition, offset = record.error(), record.partition(), record.offset()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise_if_fatal(error, self._settings.topic)
            return True
        if partition is None or offset is None:
            return True
        expected = self.next.get(partition)
        if expected is None or offset < expected:
            # Revoked meanwhile; or delivered twice, as librdkafka has done after an incremental assignment.
            return True
        if self.batch.is_empty:
            self.batch.opened = self._clock.monotonic()
        if error is not None:
            self._pass(partition, offset, expected)
            return True
        value = record.value()
        data = value if isinstance(value, bytes) else b""
        if data[:_PREFIX] == self._last_prefix and self._last_schema is not None:
            self.batch.add(record, self._last_schema, partition, offset, data[_PREFIX:])
        elif not self._take_other(record, partition, offset, data):
            return False
        self.batch.count(record, partition, offset, len(data), expected=expected, fencing_time=self.fencing_time)
        self.next[partition] = offset + 1
        return True

    def _take_other(self, record: Message, partition: int, offset: int, data: bytes) -> bool:
        """Take a record whose writer schema is not that of the record before."""
        try:
            schema_id, body = split(data)
        except WireFormatError as wrong:
            self.batch.refuse(record, partition, offset, reason="wire_format", error=str(wrong))
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

    def _pass(self, partition: int, end: int, expected: int) -> None:
        """Take the end of a partition: between the last record and it lie offsets that hold none.

        Markers of transactions, and records of aborted ones. Were they not in the books, they would look
        like records that nobody read, once the broker has deleted them.
        """
        self.at_end.add(partition)
        if end > expected:
            self.batch.reach(partition, end - 1, expected=expected, fencing_time=self.fencing_time)
            self.next[partition] = end
