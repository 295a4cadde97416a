"""The records in hand between two commits, and what became of them."""

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import methodcaller
from typing import Any, Protocol

from auditstream_schemas.codec import join
from auditstream_sink.framing import block, body_of
from auditstream_sink.writers import WriterSchema

_ID = slice(1, 37)
"""Where a body holds the event's id, behind the text's length."""


class Message(Protocol):
    """The part of confluent_kafka.Message that a batch uses."""

    def key(self) -> bytes | str | None: ...  # noqa: D102
    def value(self) -> bytes | str | None: ...  # noqa: D102
    def headers(self) -> Any: ...  # noqa: D102
    def timestamp(self) -> tuple[int, int]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as it came from the topic.

    Attributes:
        partition: Kafka partition.
        offset: Kafka offset.
        key: Message key.
        value: All its bytes; None for a tombstone.
        headers: Its own headers; None where the client cannot read them, since a name is not UTF-8.
    """

    partition: int
    offset: int
    key: bytes | str | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] | None

    @staticmethod
    def of(message: Message, partition: int, offset: int) -> "Record":
        """Take all of a message that the sink needs."""
        value = message.value()
        return Record(
            partition=partition,
            offset=offset,
            key=message.key(),
            value=value if isinstance(value, bytes) else None,
            headers=record_headers(message),
        )


@dataclass(slots=True, kw_only=True)
class OffsetRange:
    """The offsets of one partition in a batch.

    Attributes:
        first: Where the books go on: one past the last accounted offset.
        last: The last offset passed: of a record taken, or of a transaction's marker behind it.
        fencing_time: When the partition was given to this sink.
        first_time: Kafka's timestamp of the first record, seconds since 1970; None if it has none.
        read: Records taken; fewer than ``last - first + 1`` where a transaction left markers or was aborted.
    """

    first: int
    last: int
    fencing_time: int
    first_time: float | None
    read: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A record that cannot be stored.

    Attributes:
        record: As it came from the topic.
        verdict: ``invalid``, ``conflict`` or ``expired``: its column in the books.
        reason: A short word to filter by.
        error: A sentence for the person who reads the dead letters; holds no payload.
    """

    record: Record
    verdict: str
    reason: str
    error: str


class SchemaGroup:
    """Records of one writer schema, as one run of container blocks.

    A block holds a record's body: the client's message beside it would take twice as much again. A record that is
    more than its block, with headers or a key that is not its id, is kept beside.

    Attributes:
        schema: The writer schema.
        partitions: Kafka partition of each record.
        offsets: Kafka offset of each.
    """

    def __init__(self, schema: WriterSchema) -> None:
        self.schema = schema
        self.partitions = array("i")
        self.offsets = array("q")
        self._blocks = bytearray()
        self._ends = array("q")
        self._beside: dict[tuple[int, int], Record] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, message: Message, partition: int, offset: int, body: bytes) -> None:
        """Take a record."""
        self._blocks += block(partition, offset, body)
        self._ends.append(len(self._blocks))
        self.partitions.append(partition)
        self.offsets.append(offset)
        if message.key() != body[_ID] or record_headers(message) != ():
            self._beside[partition, offset] = Record.of(message, partition, offset)

    def blocks(self, indices: Sequence[int]) -> list[memoryview]:
        """The blocks of these records, which are in ascending order: neighbours in one piece."""
        runs: list[memoryview] = []
        blocks, first = memoryview(self._blocks), 0
        for place in range(1, len(indices) + 1):
            if place == len(indices) or indices[place] != indices[place - 1] + 1:
                runs.append(blocks[self._start(indices[first]) : self._ends[indices[place - 1]]])
                first = place
        return runs

    def body(self, index: int) -> bytes:
        """The body of the record at an index."""
        return body_of(bytes(self._blocks[self._start(index) : self._ends[index]]))

    def record(self, index: int) -> Record:
        """The record at an index, whole."""
        partition, offset = self.partitions[index], self.offsets[index]
        beside = self._beside.get((partition, offset))
        if beside is not None:
            return beside
        body = self.body(index)
        value = join(self.schema.schema_id, body)
        return Record(partition=partition, offset=offset, key=body[_ID], value=value, headers=())

    def without(self, indices: Collection[int]) -> "SchemaGroup":
        """All other records."""
        rest = SchemaGroup(self.schema)
        kept = [index for index in range(len(self)) if index not in indices]
        rest.partitions = array("i", [self.partitions[index] for index in kept])
        rest.offsets = array("q", [self.offsets[index] for index in kept])
        rest._ends = array("q", accumulate(self._ends[index] - self._start(index) for index in kept))
        rest._blocks = bytearray().join(self.blocks(kept))
        rest._beside = self._beside
        return rest

    def _start(self, index: int) -> int:
        return self._ends[index - 1] if index else 0


class Batch:
    """Records of any partitions and writer schemas, in the order of arrival."""

    def __init__(self, opened: float) -> None:
        self.opened = opened
        self.bytes = 0
        self.rows = 0
        self.spans: dict[int, OffsetRange] = {}
        self.lots: dict[int, SchemaGroup] = {}
        self.refused: list[Refused] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to enter into the books."""
        return not self.spans

    def add(self, message: Message, schema: WriterSchema, partition: int, offset: int, body: bytes) -> None:
        """Take a record whose writer schema is known."""
        lot = self.lots.get(schema.schema_id)
        if lot is None:
            lot = self.lots[schema.schema_id] = SchemaGroup(schema)
        lot.add(message, partition, offset, body)

    def refuse(self, message: Message, partition: int, offset: int, *, reason: str, error: str) -> None:
        """Take a record that is not even framed right."""
        record = Record.of(message, partition, offset)
        self.refused.append(Refused(record=record, verdict="invalid", reason=reason, error=error))

    def count(
        self, message: Message, partition: int, offset: int, size: int, *, expected: int, fencing_time: int
    ) -> None:
        """Enter a record into its partition's span; ``expected`` is where the books of the partition go on."""
        span = self.spans.get(partition)
        if span is None or not span.read:
            span = self.reach(partition, offset, expected=expected, fencing_time=fencing_time)
            _kind, milliseconds = message.timestamp()
            span.first_time = milliseconds / 1000 if milliseconds >= 0 else None
        span.last = offset
        span.read += 1
        self.rows += 1
        self.bytes += size

    def reach(self, partition: int, offset: int, *, expected: int, fencing_time: int) -> OffsetRange:
        """Enter offsets up to this one into the partition's span, be there records at them or not."""
        span = self.spans.get(partition)
        if span is None:
            span = self.spans[partition] = OffsetRange(
                first=expected, last=offset, fencing_time=fencing_time, first_time=None
            )
        span.last = offset
        return span


# confluent_kafka returns a list with holes and an exception at once. Where Python calls it directly it may not
# notice, and run into the holes; from here it does, and raises SystemError.
_headers = methodcaller("headers")


def record_headers(message: Any) -> Sequence[tuple[str, bytes | None]] | None:
    """A message's headers; None where the client cannot read them, since a name is not UTF-8."""
    try:
        return _headers(message) or ()
    except (SystemError, UnicodeDecodeError):
        return None
