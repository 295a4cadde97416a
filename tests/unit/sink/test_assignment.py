from collections.abc import Callable
from uuid import UUID

import pytest

from auditstream_sink.assignment import Assignment
from auditstream_storage.ledger import LedgerEnd

TOPIC, OTHER_TOPIC = UUID(int=1), UUID(int=2)


def ends(**offsets: int) -> dict[int, LedgerEnd]:
    """Ends of ledgers, as p0=99: the ledger of partition 0 ends at offset 99."""
    return {int(name[1:]): LedgerEnd(end=offset, line_first=0) for name, offset in offsets.items()}


@pytest.fixture
def assignment() -> Assignment:
    """Partitions 0 and 1, read from offsets 100 and 200."""
    assignment = Assignment()
    assignment.assigned([0, 1])
    assert assignment.positioned(TOPIC, 7, ends(p0=99, p1=199))
    assignment.sought()
    return assignment


def test_an_assigned_partition_is_not_read_before_it_is_positioned() -> None:
    assignment = Assignment()
    assignment.assigned([0])
    assert (assignment.unpositioned, assignment.next_offsets, len(assignment)) == ({0}, {}, 1)
    assert not assignment.is_at_end


def test_a_positioned_partition_is_read_one_past_the_end_of_its_ledger(assignment: Assignment) -> None:
    assert assignment.next_offsets == {0: 100, 1: 200}
    assert (assignment.topic_id, assignment.fencing_time) == (TOPIC, 7)
    assert (assignment.unpositioned, len(assignment)) == (set(), 2)


def test_every_change_of_position_requires_a_seek(assignment: Assignment) -> None:
    assignment.assigned([2])
    changes: list[Callable[[], object]] = [
        lambda: assignment.positioned(TOPIC, 8, ends(p2=0)),
        lambda: assignment.gone([2]),
        assignment.reset,
    ]
    for change in changes:
        before = assignment.must_seek
        change()
        assert (before, assignment.must_seek) == (False, True)
        assignment.sought()


def test_a_partition_that_is_gone_since_the_look_up_is_not_positioned(assignment: Assignment) -> None:
    assignment.assigned([2, 3])
    assignment.gone([3])
    assert not assignment.positioned(TOPIC, 8, ends(p2=0, p3=0))
    assert assignment.unpositioned == {2}
    assert assignment.next_offsets == {0: 100, 1: 200}


def test_partitions_that_are_gone_are_neither_read_nor_positioned(assignment: Assignment) -> None:
    assignment.assigned([2])
    assignment.gone([0, 2, 5])
    assert (assignment.next_offsets, assignment.unpositioned) == ({1: 200}, set())


def test_a_reset_reads_every_partition_from_the_end_of_its_ledger_again(assignment: Assignment) -> None:
    assignment.next_offsets[0] = 150
    assignment.reset()
    assert (assignment.next_offsets, assignment.unpositioned) == ({}, {0, 1})
    assert assignment.positioned(TOPIC, 9, ends(p0=120, p1=199))
    assert assignment.next_offsets == {0: 121, 1: 200}


def test_a_cancelled_batch_does_not_change_the_ledger_ends_after_a_reset(assignment: Assignment) -> None:
    of_cancelled_batch = assignment.ledger_ends
    assignment.reset()
    assignment.positioned(TOPIC, 9, ends(p0=99, p1=199))
    of_cancelled_batch.update(ends(p0=500))
    assert assignment.ledger_ends == ends(p0=99, p1=199)


def test_a_topic_that_was_created_again_is_another_while_partitions_are_read(assignment: Assignment) -> None:
    assert assignment.is_other_topic(OTHER_TOPIC)
    assert not assignment.is_other_topic(TOPIC)
    assignment.reset()
    assert not assignment.is_other_topic(OTHER_TOPIC)
    assignment.positioned(OTHER_TOPIC, 9, ends(p0=-1, p1=-1))
    assert (assignment.topic_id, assignment.next_offsets) == (OTHER_TOPIC, {0: 0, 1: 0})


def test_all_partitions_are_at_their_end_only_when_all_are_positioned(assignment: Assignment) -> None:
    changes: list[Callable[[], object]] = [
        lambda: assignment.at_end.add(0),
        lambda: assignment.at_end.add(1),
        lambda: assignment.assigned([2]),
        lambda: assignment.gone([2]),
        assignment.sought,
        lambda: assignment.gone([0, 1]),
    ]
    answers = []
    for change in changes:
        change()
        answers.append(assignment.is_at_end)
    assert answers == [False, True, False, True, False, False]
