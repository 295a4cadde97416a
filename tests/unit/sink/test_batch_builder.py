"""When a batch is due, and which fetched records are added to it."""

from dataclasses import dataclass
from uuid import UUID

import pytest
from confluent_kafka import KafkaError, Message

from auditstream_sink import SinkSettings
from auditstream_sink.assignment import Assignment
from auditstream_sink.batch_builder import BatchBuilder
from auditstream_sink.clock import Clock
from auditstream_sink.writer_schemas import WriterSchema
from auditstream_storage.ledger import LedgerEnd

SETTINGS = SinkSettings(flush_rows=100, flush_bytes=10_000, flush_seconds=1.0)


@dataclass
class HandClock(Clock):
    seconds: float = 0.0

    def monotonic(self) -> float:
        return self.seconds


def no_schema(_schema_id: int) -> WriterSchema | None:
    return None


def builder_with(rows: int, *, size: int = 1, age: float = 0.0) -> BatchBuilder:
    """A builder whose batch has so many records of so many bytes, the first of them so many seconds old."""
    clock = HandClock()
    builder = BatchBuilder(SETTINGS, clock, Assignment(), no_schema)
    for offset in range(rows):
        builder.batch.count(Message(timestamp=(0, -1)), 0, offset, size, expected=0, fencing_time=0)
    clock.seconds = age
    return builder


@pytest.mark.parametrize(
    ("rows", "size", "age", "when_idle", "when_busy"),
    [
        (0, 1, 9.0, False, False),
        (24, 1, 0.9, False, False),
        (24, 1, 1.0, True, False),
        (25, 1, 0.0, True, False),
        (10, 250, 0.0, True, False),
        (99, 1, 9.0, True, False),
        (100, 1, 0.0, True, True),
        (10, 1000, 0.0, True, True),
    ],
)
def test_a_batch_is_due_when_it_is_full_and_earlier_while_no_other_is_written(
    *, rows: int, size: int, age: float, when_idle: bool, when_busy: bool
) -> None:
    builder = builder_with(rows, size=size, age=age)
    assert builder.is_due(is_busy=False) is when_idle
    assert builder.is_due(is_busy=True) is when_busy


def garbage(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, value=b"garbage", timestamp=(1, 5000))


def end_of_partition(partition: int, offset: int) -> Message:
    error = KafkaError(KafkaError._PARTITION_EOF)
    return Message(topic="t", partition=partition, offset=offset, error=error)


@pytest.fixture
def assignment() -> Assignment:
    """Partition 0, read from offset 10."""
    assignment = Assignment()
    assignment.assigned([0])
    assignment.positioned(UUID(int=1), 7, {0: LedgerEnd(end=9, line_first=0)})
    return assignment


def test_a_record_of_another_partition_or_an_earlier_offset_is_not_added(assignment: Assignment) -> None:
    builder = BatchBuilder(SETTINGS, Clock(), assignment, no_schema)
    for record in (garbage(1, 10), garbage(0, 9), garbage(0, 10), garbage(0, 10), garbage(0, 12)):
        assert builder.add(record)
    offsets = builder.batch.offset_ranges[0]
    assert (offsets.first, offsets.last, offsets.read, offsets.first_time) == (10, 12, 2, 5.0)
    assert [refused.record.offset for refused in builder.batch.refused] == [10, 12]
    assert assignment.next_offsets == {0: 13}


def test_the_end_of_a_partition_covers_the_offsets_without_records_before_it(assignment: Assignment) -> None:
    builder = BatchBuilder(SETTINGS, Clock(), assignment, no_schema)
    builder.add(garbage(0, 10))
    builder.add(end_of_partition(0, 15))
    offsets = builder.batch.offset_ranges[0]
    assert (offsets.first, offsets.last, offsets.read, offsets.fencing_time) == (10, 14, 1, 7)
    assert assignment.is_at_end
    assert assignment.next_offsets == {0: 15}


def test_a_record_whose_schema_is_not_known_yet_waits(assignment: Assignment) -> None:
    builder = BatchBuilder(SETTINGS, Clock(), assignment, no_schema)
    record = Message(topic="t", partition=0, offset=10, value=b"\0\0\0\0\x01body")
    assert not builder.add(record)
    assert builder.batch.is_empty
    assert assignment.next_offsets == {0: 10}
