"""The records in hand between two commits, and what became of them."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
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
class Span:
    """The offsets of one partition in a batch.

    Attributes:
        first: Where the books go on: one past the last accounted offset.
        last: The last offset passed: of a record taken, or of a transaction's marker behind it.
        epoch: When the partition was given to this sink.
        first_time: Kafka's timestamp of the first record, seconds since 1970; None if it has none.
        read: Records taken; fewer than ``last - first + 1`` where a transaction left markers or was aborted.
    """

    first: int
    last: int
    epoch: int
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


class Lot:
    """Records of one writer schema.

    Of a record its container block is kept, which holds its body, and its coordinates: the client's message takes
    twice as much. A record that is more than its block, with headers or a key that is not its id, is kept beside it.

    Attributes:
        schema: The writer schema.
        blocks: Container blocks.
        partitions: Kafka partitions at the same indices.
        offsets: Kafka offsets at the same indices.
    """

    def __init__(self, schema: WriterSchema) -> None:
        self.schema = schema
        self.blocks: list[bytes] = []
        self.partitions = array("i")
        self.offsets = array("q")
        self._beside: dict[tuple[int, int], Record] = {}

    def add(self, message: Message, partition: int, offset: int, body: bytes) -> None:
        """Take a record."""
        self.blocks.append(block(partition, offset, body))
        self.partitions.append(partition)
        self.offsets.append(offset)
        if message.key() != body[_ID] or record_headers(message) != ():
            self._beside[partition, offset] = Record.of(message, partition, offset)

    def record(self, index: int) -> Record:
        """The record at an index, whole."""
        partition, offset = self.partitions[index], self.offsets[index]
        beside = self._beside.get((partition, offset))
        if beside is not None:
            return beside
        body = body_of(self.blocks[index])
        value = join(self.schema.schema_id, body)
        return Record(partition=partition, offset=offset, key=body[_ID], value=value, headers=())

    def keep(self, indices: Sequence[int]) -> None:
        """Drop all others."""
        self.blocks = [self.blocks[index] for index in indices]
        self.partitions = array("i", [self.partitions[index] for index in indices])
        self.offsets = array("q", [self.offsets[index] for index in indices])


class Batch:
    """Records of any partitions and writer schemas, in the order of arrival."""

    def __init__(self, opened: float) -> None:
        self.opened = opened
        self.bytes = 0
        self.rows = 0
        self.spans: dict[int, Span] = {}
        self.lots: dict[int, Lot] = {}
        self.refused: list[Refused] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to enter into the books."""
        return not self.spans

    def add(self, message: Message, schema: WriterSchema, partition: int, offset: int, body: bytes) -> None:
        """Take a record whose writer schema is known."""
        lot = self.lots.get(schema.schema_id)
        if lot is None:
            lot = self.lots[schema.schema_id] = Lot(schema)
        lot.add(message, partition, offset, body)

    def refuse(self, message: Message, partition: int, offset: int, *, reason: str, error: str) -> None:
        """Take a record that is not even framed right."""
        record = Record.of(message, partition, offset)
        self.refused.append(Refused(record=record, verdict="invalid", reason=reason, error=error))

    def count(self, message: Message, partition: int, offset: int, size: int, *, expected: int, epoch: int) -> None:
        """Enter a record into its partition's span; ``expected`` is where the books of the partition go on."""
        span = self.spans.get(partition)
        if span is None or not span.read:
            span = self.reach(partition, offset, expected=expected, epoch=epoch)
            _kind, milliseconds = message.timestamp()
            span.first_time = milliseconds / 1000 if milliseconds >= 0 else None
        span.last = offset
        span.read += 1
        self.rows += 1
        self.bytes += size

    def reach(self, partition: int, offset: int, *, expected: int, epoch: int) -> Span:
        """Enter offsets up to this one into the partition's span, be there records at them or not."""
        span = self.spans.get(partition)
        if span is None:
            span = self.spans[partition] = Span(first=expected, last=offset, epoch=epoch, first_time=None)
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
