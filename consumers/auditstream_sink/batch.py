"""The records in hand between two commits, and what became of them."""

from dataclasses import dataclass, field
from typing import Protocol

from auditstream_sink.framing import block
from auditstream_sink.writers import WriterSchema


class Record(Protocol):
    """The part of confluent_kafka.Message that the sink uses."""

    def partition(self) -> int | None: ...  # noqa: D102
    def offset(self) -> int | None: ...  # noqa: D102
    def key(self) -> bytes | str | None: ...  # noqa: D102
    def value(self) -> bytes | str | None: ...  # noqa: D102
    def timestamp(self) -> tuple[int, int]: ...  # noqa: D102


@dataclass(slots=True, kw_only=True)
class Span:
    """The offsets of one partition in a batch.

    Attributes:
        first: Where the books go on: one past the last accounted offset.
        last: Offset of the last record taken.
        epoch: When the partition was given to this sink.
        first_time: Kafka's timestamp of the first record, seconds since 1970; None if it has none.
        read: Records taken; fewer than ``last - first + 1`` where a transaction left marker offsets.
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


@dataclass(slots=True)
class Lot:
    """Records of one writer schema, each with its container block at the same index."""

    schema: WriterSchema
    records: list[Record] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)


class Batch:
    """Records of any partitions and writer schemas, in the order of arrival."""

    def __init__(self, opened: float) -> None:
        self.opened = opened
        self.bytes = 0
        self.rows = 0
        self.spans: dict[int, Span] = {}
        self.lots: dict[int, Lot] = {}
        self.refused: list[Refused] = []

    def add(self, record: Record, schema: WriterSchema, partition: int, offset: int, body: bytes) -> None:
        """Take a record whose writer schema is known."""
        lot = self.lots.get(schema.schema_id)
        if lot is None:
            lot = self.lots[schema.schema_id] = Lot(schema)
        lot.records.append(record)
        lot.blocks.append(block(partition, offset, body))

    def refuse(self, record: Record, reason: str, error: str) -> None:
        """Take a record that is not even framed right."""
        self.refused.append(Refused(record=record, verdict="invalid", reason=reason, error=error))

    def count(self, record: Record, partition: int, offset: int, size: int, *, expected: int, epoch: int) -> None:
        """Enter a record into its partition's span; ``expected`` is where the books of the partition go on."""
        span = self.spans.get(partition)
        if span is None:
            _kind, milliseconds = record.timestamp()
            first_time = milliseconds / 1000 if milliseconds >= 0 else None
            span = self.spans[partition] = Span(first=expected, last=offset, epoch=epoch, first_time=first_time)
        span.last = offset
        span.read += 1
        self.rows += 1
        self.bytes += size
