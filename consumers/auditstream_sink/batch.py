"""The records of one batch by writer schema, and the offsets that the batch covers."""

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import methodcaller
from typing import Any

from confluent_kafka import Message

from auditstream_schemas.codec import join
from auditstream_sink.framing import block, body_of
from auditstream_sink.writer_schemas import WriterSchema

_ID = slice(1, 37)
"""The event's id in a body: it stands behind its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as it came from the topic. ``value`` is None for a tombstone; for ``headers`` see `record_headers`."""

    partition: int
    offset: int
    key: bytes | str | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] | None

    @staticmethod
    def of(message: Message, partition: int, offset: int) -> "Record":
        """Copy a message of the client."""
        value = message.value()
        value = value if isinstance(value, bytes) else None
        headers = record_headers(message)
        return Record(partition=partition, offset=offset, key=message.key(), value=value, headers=headers)


@dataclass(slots=True, kw_only=True)
class OffsetRange:
    """The offsets of one partition in a batch, from ``first`` to ``last`` inclusive.

    Attributes:
        fencing_time: When the partition was positioned, by ClickHouse's clock.
        first_time: Kafka's timestamp of the first record, seconds since 1970; None if it has none.
        read: Number of records. Offsets of control records and of aborted transactions have none.
    """

    first: int
    last: int
    fencing_time: int
    first_time: float | None = None
    read: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRecord:
    """A record that cannot be stored.

    Attributes:
        status: ``invalid``, ``conflict`` or ``expired``: its count in the ledger.
        reason: A short word to filter by.
        error: A sentence for the reader of the dead letters, without payload.
    """

    record: Record
    status: str
    reason: str
    error: str


class SchemaGroup:
    """Records of one writer schema, as one run of container blocks.

    Only a record's body is kept, in its block: keeping the client's message too would triple the memory. A record
    with headers, or with a key that is not its id, is kept whole beside its block.
    """

    def __init__(self, schema: WriterSchema) -> None:
        self.schema = schema
        self.partitions = array("i")
        self.offsets = array("q")
        self._blocks = bytearray()
        self._ends = array("q")
        self._whole_records: dict[tuple[int, int], Record] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, message: Message, partition: int, offset: int, body: bytes) -> None:
        """Add a record."""
        self._blocks += block(partition, offset, body)
        self._ends.append(len(self._blocks))
        self.partitions.append(partition)
        self.offsets.append(offset)
        if message.key() != body[_ID] or record_headers(message) != ():
            self._whole_records[partition, offset] = Record.of(message, partition, offset)

    def blocks(self, indices: Sequence[int]) -> list[memoryview]:
        """The blocks of records, whose indices are in ascending order; neighbours come in one piece."""
        runs: list[memoryview] = []
        blocks, first = memoryview(self._blocks), 0
        for number in range(1, len(indices) + 1):
            if number == len(indices) or indices[number] != indices[number - 1] + 1:
                runs.append(blocks[self._start(indices[first]) : self._ends[indices[number - 1]]])
                first = number
        return runs

    def body(self, index: int) -> bytes:
        """The body of the record at an index."""
        return body_of(bytes(self._blocks[self._start(index) : self._ends[index]]))

    def record(self, index: int) -> Record:
        """The whole record at an index."""
        partition, offset = self.partitions[index], self.offsets[index]
        if whole_record := self._whole_records.get((partition, offset)):
            return whole_record
        body = self.body(index)
        value = join(self.schema.schema_id, body)
        return Record(partition=partition, offset=offset, key=body[_ID], value=value, headers=())

    def without(self, indices: Collection[int]) -> "SchemaGroup":
        """A group of all other records."""
        rest = SchemaGroup(self.schema)
        remaining = [index for index in range(len(self)) if index not in indices]
        rest.partitions = array("i", [self.partitions[index] for index in remaining])
        rest.offsets = array("q", [self.offsets[index] for index in remaining])
        rest._ends = array("q", accumulate(self._ends[index] - self._start(index) for index in remaining))
        rest._blocks = bytearray().join(self.blocks(remaining))
        rest._whole_records = self._whole_records
        return rest

    def _start(self, index: int) -> int:
        return self._ends[index - 1] if index else 0


@dataclass(slots=True)
class Batch:
    """Records of any partitions and writer schemas.

    Attributes:
        opened: When its first record was added, by the clock's ``monotonic``.
        size: Bytes of its records' values.
        rows: Number of its records.
        groups: By schema id, the records that can be staged.
        refused: Records that cannot be staged.
    """

    opened: float
    size: int = 0
    rows: int = 0
    offset_ranges: dict[int, OffsetRange] = field(default_factory=dict)
    groups: dict[int, SchemaGroup] = field(default_factory=dict)
    refused: list[RefusedRecord] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether it covers no offset."""
        return not self.offset_ranges

    def add(self, message: Message, schema: WriterSchema, partition: int, offset: int, body: bytes) -> None:
        """Add a record whose writer schema is known."""
        group = self.groups.get(schema.schema_id)
        if group is None:
            group = self.groups[schema.schema_id] = SchemaGroup(schema)
        group.add(message, partition, offset, body)

    def refuse(self, message: Message, partition: int, offset: int, *, reason: str, error: str) -> None:
        """Add a record that cannot be staged."""
        record = Record.of(message, partition, offset)
        self.refused.append(RefusedRecord(record=record, status="invalid", reason=reason, error=error))

    def count(
        self, message: Message, partition: int, offset: int, size: int, *, expected: int, fencing_time: int
    ) -> None:
        """Count a record in its partition's offset range, which begins at ``expected`` if it is new."""
        offset_range = self.offset_ranges.get(partition)
        if offset_range is None or not offset_range.read:
            offset_range = self.extend(partition, offset, expected=expected, fencing_time=fencing_time)
            _kind, milliseconds = message.timestamp()
            offset_range.first_time = milliseconds / 1000 if milliseconds >= 0 else None
        offset_range.last = offset
        offset_range.read += 1
        self.rows += 1
        self.size += size

    def extend(self, partition: int, last: int, *, expected: int, fencing_time: int) -> OffsetRange:
        """Extend the partition's offset range up to ``last``, whether or not there are records at these offsets."""
        new = OffsetRange(first=expected, last=last, fencing_time=fencing_time)
        offset_range = self.offset_ranges.setdefault(partition, new)
        offset_range.last = last
        return offset_range


# For a header whose name is not UTF-8, confluent_kafka returns a list with holes and sets an exception. A direct call
# may miss the exception and crash on a hole; a call through methodcaller sees it and raises SystemError.
_headers = methodcaller("headers")


def record_headers(message: Any) -> Sequence[tuple[str, bytes | None]] | None:
    """A message's headers; None if the client cannot read them, because a name is not UTF-8."""
    try:
        return _headers(message) or ()
    except (SystemError, UnicodeDecodeError):
        return None
