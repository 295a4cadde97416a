from dataclasses import replace

import pytest

from auditstream_ops.ledger.balance import PartitionAccount, against_table, against_topic
from auditstream_ops.ledger.ledger_reader import Extra, Finding, Loss, PartitionTotals, Rows
from auditstream_ops.ledger.recheck import Recheck
from auditstream_ops.ledger.topic_reader import Extent

TOTALS = PartitionTotals(
    partition=3,
    first_offset=100,
    last_offset=199,
    batches=2,
    read=100,
    stored=90,
    duplicates=4,
    conflicts=3,
    invalid=2,
    expired=1,
    lost=0,
)
ROWS = Rows(within=90, ahead=0, doubled=0)
NONE = Extra(findings=0, hollow=0, expired_since=0)
LINE = Finding(
    partition=3,
    first_offset=100,
    last_offset=149,
    read=50,
    stored=40,
    others=10,
    lost=0,
    rows=40,
    elsewhere=0,
    noted=0,
    stray=0,
    reached=None,
    is_fault=True,
    is_past=False,
)
LOOK = Recheck(is_whole=True, records=50, lost=(), aged=0, elsewhere={})
SOUND = against_table(TOTALS, ROWS, [], NONE)


def test_sound_books_have_no_faults_and_no_notes() -> None:
    assert (SOUND.faults, SOUND.notes, SOUND.problems) == ((), (), ())
    assert (SOUND.next_offset, SOUND.lag) == (200, None)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"reached": 99}, []),
        ({"reached": 79}, [("gap", 80, 99)]),
        ({"reached": 109}, [("overlap", 100, 109)]),
        ({"reached": 400}, [("overlap", 100, 149)]),
        ({"stray": 2}, [("stray", 0, 99)]),
        ({"others": 9}, [("counts", 100, 149)]),
        ({"others": 11}, [("counts", 100, 149)]),
        ({"read": 51, "others": 11}, [("span", 100, 149)]),
        ({"last_offset": 99, "read": 0, "others": 0, "stored": 0, "rows": 0}, [("span", 100, 99)]),
        ({"rows": 41}, [("extra", 100, 149)]),
        ({"rows": 41, "noted": 1}, []),
        ({"rows": 42, "noted": 1}, [("extra", 100, 149)]),
        ({"rows": 39}, [("missing", 100, 149)]),
        ({"rows": 39, "elsewhere": 1}, []),
        ({"rows": 38, "elsewhere": 1}, [("missing", 100, 149)]),
        ({"rows": 39, "is_past": True}, []),
        ({"rows": 41, "is_past": True}, [("extra", 100, 149)]),
    ],
)
def test_what_is_wrong_with_a_line(changes: dict[str, int], found: list[tuple[str, int, int]]) -> None:
    account = against_table(TOTALS, ROWS, [(replace(LINE, **changes), None)], NONE)  # type: ignore[arg-type]
    assert [(fault.kind, fault.first_offset, fault.last_offset) for fault in account.faults] == found


@pytest.mark.parametrize(
    ("look", "is_fault"),
    [
        (None, True),
        (LOOK, False),
        (replace(LOOK, aged=1), False),
        (replace(LOOK, is_whole=False), True),
        (replace(LOOK, lost=("an-id",)), True),
    ],
)
def test_missing_rows_are_forgiven_when_the_topic_vouches_for_all_of_them(look: Recheck | None, is_fault: bool) -> None:
    account = against_table(TOTALS, ROWS, [(replace(LINE, rows=39), look)], NONE)
    assert bool(account.faults) == is_fault
    assert bool(account.notes) != is_fault


@pytest.mark.parametrize(
    ("look", "is_fault"),
    [
        (None, False),
        (replace(LOOK, records=49), False),
        (replace(LOOK, records=50), True),
        (replace(LOOK, records=50, is_whole=False), False),
    ],
)
def test_offsets_without_a_record(look: Recheck | None, is_fault: bool) -> None:
    line = replace(LINE, read=49, stored=39, rows=39, is_fault=False)
    account = against_table(TOTALS, ROWS, [(line, look)], NONE)
    assert [fault.kind for fault in account.faults] == (["span"] if is_fault else [])
    assert bool(account.notes) != is_fault


def test_many_lost_events_are_counted_and_some_are_named() -> None:
    look = replace(LOOK, lost=tuple(f"id-{number}" for number in range(9)))
    [problem] = against_table(TOTALS, ROWS, [(replace(LINE, rows=31), look)], NONE).problems
    assert problem == (
        "offsets 100 to 149: stored 40, but 31 rows are there; nowhere to be found: 9 events: id-0, id-1, id-2, ..."
    )


def test_what_is_not_listed_is_counted() -> None:
    extra = Extra(findings=7, hollow=5, expired_since=2)
    hollow = replace(LINE, read=49, stored=39, rows=39, is_fault=False)
    account = against_table(TOTALS, ROWS, [(replace(LINE, others=9), None), (hollow, LOOK)], extra)
    assert account.more_faults == 6
    assert account.problems[-1] == "6 more batches do not balance"
    assert any(note.startswith("4 more batches") for note in account.notes)
    assert account.expired_since == 2


def test_batches_that_are_explained_alike_share_a_sentence_and_are_listed_whole() -> None:
    lines = [replace(LINE, first_offset=number, last_offset=number + 1, read=1, is_fault=False) for number in range(9)]
    lines = [replace(line, stored=1, others=0, rows=1) for line in lines]
    looks = [replace(LOOK, records=1), *([None] * 8)]
    account = against_table(TOTALS, ROWS, list(zip(lines, looks, strict=True)), replace(NONE, hollow=9))
    assert account.faults == ()
    one, eight = account.notes
    assert one == "offsets 0 to 1: 1 of them held no record: a producer used transactions"
    assert eight.startswith("offsets 1 to 2: 1 of them held no record, as the books have it; ")
    assert eight.endswith("; so in 7 more batches, up to offset 9")
    assert [each.first_offset for each in account.explained] == list(range(9))


def test_what_was_accepted_as_lost_is_told_for_ever_and_is_no_fault_once_it_is_gone() -> None:
    loss = Loss(first_offset=120, last_offset=129, at="2026-02-01T00:00:00Z", by="ann@host", reason="a long outage")
    account = against_table(replace(TOTALS, lost=10), ROWS, [], NONE, [loss])
    assert (account.lost, account.losses) == (10, (loss,))
    assert _with_topic(account, (130, 200), None).faults == ()
    assert _with_topic(account, (130, 200), None).notes[0] == (
        "offsets 120 to 129 are lost: deleted by the broker before any sink read them; "
        "accepted by ann@host at 2026-02-01T00:00:00Z: a long outage"
    )
    [fault] = _with_topic(account, (125, 200), None).faults
    assert (fault.kind, fault.first_offset, fault.last_offset) == ("lost", 120, 129)


def test_rows_ahead_are_no_fault_and_doubled_ones_are() -> None:
    assert not against_table(TOTALS, replace(ROWS, ahead=5), [], NONE).faults
    assert [fault.kind for fault in against_table(TOTALS, replace(ROWS, doubled=1), [], NONE).faults] == ["doubled"]


@pytest.mark.parametrize(
    ("extent", "committed", "complete", "found"),
    [
        ((100, 200), None, True, []),
        ((100, 200), 200, True, []),
        ((100, 200), 150, True, []),
        ((100, 200), 201, False, [("commit", 200, 200)]),
        ((100, 250), None, False, []),
        ((100, 250), None, True, [("unread", 200, 249)]),
        ((210, 250), None, False, [("gone", 200, 209)]),
        ((100, 190), None, False, [("beyond", 190, 199)]),
    ],
)
def test_what_is_wrong_between_books_and_topic(
    extent: tuple[int, int], committed: int | None, complete: bool, found: list[tuple[str, int, int]]
) -> None:
    account = _with_topic(SOUND, extent, committed, complete=complete)
    assert [(fault.kind, fault.first_offset, fault.last_offset) for fault in account.faults] == found
    assert account.lag == max(0, extent[1] - 200)


def test_records_before_the_books_are_a_gap_only_if_there_are_any() -> None:
    extent = Extent(low=40, end=200)
    account = against_topic(SOUND, extent, None, head_records=1, earlier_end=0, complete=False)
    assert [(fault.kind, fault.first_offset, fault.last_offset) for fault in account.faults] == [("gap", 40, 99)]
    account = against_topic(SOUND, extent, None, head_records=0, earlier_end=0, complete=False)
    assert not account.faults
    assert account.notes == ("the books begin at offset 100: whether records lay before it cannot be known any more",)


@pytest.mark.parametrize(("earlier_end", "is_fault"), [(0, True), (249, True), (250, False), (900, False)])
def test_a_commit_that_an_earlier_topic_left_is_no_fault(earlier_end: int, is_fault: bool) -> None:
    account = _with_topic(SOUND, (100, 300), 250, earlier_end=earlier_end)
    assert bool(account.faults) == is_fault
    assert bool([note for note in account.notes if "earlier topic" in note]) != is_fault


def test_a_partition_without_books_begins_where_the_topic_does() -> None:
    empty = replace(SOUND, batches=0, first_offset=0, last_offset=-1)
    account = _with_topic(empty, (30, 42), 30, complete=False)
    assert (account.first_offset, account.last_offset, account.lag, account.faults) == (30, 29, 12, ())
    [fault] = _with_topic(empty, (30, 42), 42, complete=False).faults
    assert (fault.kind, fault.first_offset, fault.last_offset) == ("commit", 30, 41)


def _with_topic(
    account: PartitionAccount,
    extent: tuple[int, int],
    committed: int | None,
    *,
    complete: bool = False,
    earlier_end: int = 0,
) -> PartitionAccount:
    low, end = extent
    return against_topic(
        account, Extent(low=low, end=end), committed, head_records=0, earlier_end=earlier_end, complete=complete
    )
