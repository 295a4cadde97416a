from dataclasses import replace

import pytest

from auditstream_ops.ledger.ledger_reader import Extra, Finding, Loss, PartitionTotals, Rows
from auditstream_ops.ledger.partition_check import PartitionCheck, compare_with_table, compare_with_topic
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
RECHECK = Recheck(is_whole=True, records=50, lost=(), aged=0, elsewhere={})
BALANCED = compare_with_table(TOTALS, ROWS, [], NONE)


def test_a_ledger_that_balances_has_no_faults_and_no_notes() -> None:
    assert (BALANCED.faults, BALANCED.notes, BALANCED.problems) == ((), (), ())
    assert (BALANCED.next_offset, BALANCED.lag) == (200, None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"reached": 99}, []),
        ({"reached": 79}, [("gap", 80, 99)]),
        ({"reached": 109}, [("overlap", 100, 109)]),
        ({"reached": 400}, [("overlap", 100, 149)]),
        ({"stray": 2}, [("stray", 0, 99)]),
        ({"others": 9}, [("counts", 100, 149)]),
        ({"others": 11}, [("counts", 100, 149)]),
        ({"read": 51, "others": 11}, [("range", 100, 149)]),
        ({"last_offset": 99, "read": 0, "others": 0, "stored": 0, "rows": 0}, [("range", 100, 99)]),
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
def test_a_faulty_line_has_the_right_faults(changes: dict[str, int], expected: list[tuple[str, int, int]]) -> None:
    check = compare_with_table(TOTALS, ROWS, [(replace(LINE, **changes), None)], NONE)  # type: ignore[arg-type]
    assert [(fault.kind, fault.first_offset, fault.last_offset) for fault in check.faults] == expected


@pytest.mark.parametrize(
    ("done", "is_fault"),
    [
        (None, True),
        (RECHECK, False),
        (replace(RECHECK, aged=1), False),
        (replace(RECHECK, is_whole=False), True),
        (replace(RECHECK, lost=("an-id",)), True),
    ],
)
def test_missing_rows_are_no_fault_if_the_recheck_explains_all_of_them(done: Recheck | None, is_fault: bool) -> None:
    check = compare_with_table(TOTALS, ROWS, [(replace(LINE, rows=39), done)], NONE)
    assert bool(check.faults) == is_fault
    assert bool(check.notes) != is_fault


@pytest.mark.parametrize(
    ("done", "is_fault"),
    [
        (None, False),
        (replace(RECHECK, records=49), False),
        (replace(RECHECK, records=50), True),
        (replace(RECHECK, records=50, is_whole=False), False),
    ],
)
def test_offsets_without_a_record_are_a_fault_if_the_topic_has_records_there(
    done: Recheck | None, is_fault: bool
) -> None:
    line = replace(LINE, read=49, stored=39, rows=39, is_fault=False)
    check = compare_with_table(TOTALS, ROWS, [(line, done)], NONE)
    assert [fault.kind for fault in check.faults] == (["range"] if is_fault else [])
    assert bool(check.notes) != is_fault


def test_many_lost_events_are_counted_and_some_are_named() -> None:
    done = replace(RECHECK, lost=tuple(f"id-{number}" for number in range(9)))
    [problem] = compare_with_table(TOTALS, ROWS, [(replace(LINE, rows=31), done)], NONE).problems
    assert problem == (
        "offsets 100 to 149: stored 40, but the table has 31 rows; "
        "9 events are neither stored nor refused: id-0, id-1, id-2, ..."
    )


def test_batches_that_are_not_listed_are_counted() -> None:
    extra = Extra(findings=7, hollow=5, expired_since=2)
    hollow = replace(LINE, read=49, stored=39, rows=39, is_fault=False)
    check = compare_with_table(TOTALS, ROWS, [(replace(LINE, others=9), None), (hollow, RECHECK)], extra)
    assert check.more_faults == 6
    assert check.problems[-1] == "6 more batches do not balance"
    assert any(note.startswith("4 more batches") for note in check.notes)
    assert check.expired_since == 2


def test_batches_with_one_explanation_share_a_sentence() -> None:
    lines = [replace(LINE, first_offset=number, last_offset=number + 1, read=1, is_fault=False) for number in range(9)]
    lines = [replace(line, stored=1, others=0, rows=1) for line in lines]
    rechecks = [replace(RECHECK, records=1), *([None] * 8)]
    check = compare_with_table(TOTALS, ROWS, list(zip(lines, rechecks, strict=True)), replace(NONE, hollow=9))
    assert check.faults == ()
    one, eight = check.notes
    assert one == "offsets 0 to 1: 1 of them held no record: a producer used transactions"
    assert eight.startswith("offsets 1 to 2: 1 of them held no record, according to the ledger; ")
    assert eight.endswith("; likewise 7 more batches, up to offset 9")


def test_an_accepted_loss_is_always_noted_and_is_a_fault_only_while_the_topic_has_the_records() -> None:
    loss = Loss(first_offset=120, last_offset=129, at="2026-02-01T00:00:00Z", by="ann@host", reason="a long outage")
    check = compare_with_table(replace(TOTALS, lost=10), ROWS, [], NONE, [loss])
    assert (check.lost, check.losses) == (10, (loss,))
    assert _with_topic(check, (130, 200), None).faults == ()
    assert _with_topic(check, (130, 200), None).notes[0] == (
        "offsets 120 to 129 are lost: the broker deleted them before any sink read them; "
        "accepted by ann@host at 2026-02-01T00:00:00Z: a long outage"
    )
    [fault] = _with_topic(check, (125, 200), None).faults
    assert (fault.kind, fault.first_offset, fault.last_offset) == ("lost", 120, 129)


def test_rows_beyond_the_ledger_are_no_fault_and_doubled_rows_are() -> None:
    assert not compare_with_table(TOTALS, replace(ROWS, ahead=5), [], NONE).faults
    assert [fault.kind for fault in compare_with_table(TOTALS, replace(ROWS, doubled=1), [], NONE).faults] == [
        "doubled"
    ]


@pytest.mark.parametrize(
    ("extent", "committed", "complete", "expected"),
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
def test_a_ledger_that_disagrees_with_the_topic_has_the_right_faults(
    extent: tuple[int, int], committed: int | None, complete: bool, expected: list[tuple[str, int, int]]
) -> None:
    check = _with_topic(BALANCED, extent, committed, complete=complete)
    assert [(fault.kind, fault.first_offset, fault.last_offset) for fault in check.faults] == expected
    assert check.lag == max(0, extent[1] - 200)


def test_offsets_before_the_ledger_are_a_gap_only_if_the_topic_has_records_there() -> None:
    extent = Extent(low=40, end=200)
    check = compare_with_topic(BALANCED, extent, None, has_head_records=True, earlier_end=0, complete=False)
    assert [(fault.kind, fault.first_offset, fault.last_offset) for fault in check.faults] == [("gap", 40, 99)]
    check = compare_with_topic(BALANCED, extent, None, has_head_records=False, earlier_end=0, complete=False)
    assert not check.faults
    assert check.notes == (
        "the ledger begins at offset 100: nothing shows any more whether there were records before it",
    )


@pytest.mark.parametrize(("earlier_end", "is_fault"), [(0, True), (249, True), (250, False), (900, False)])
def test_a_commit_of_an_earlier_topic_is_no_fault(earlier_end: int, is_fault: bool) -> None:
    check = _with_topic(BALANCED, (100, 300), 250, earlier_end=earlier_end)
    assert bool(check.faults) == is_fault
    assert bool([note for note in check.notes if "earlier topic" in note]) != is_fault


def test_a_partition_without_a_ledger_begins_where_the_topic_begins() -> None:
    empty = replace(BALANCED, batches=0, first_offset=0, last_offset=-1)
    check = _with_topic(empty, (30, 42), 30, complete=False)
    assert (check.first_offset, check.last_offset, check.lag, check.faults) == (30, 29, 12, ())
    [fault] = _with_topic(empty, (30, 42), 42, complete=False).faults
    assert (fault.kind, fault.first_offset, fault.last_offset) == ("commit", 30, 41)


def _with_topic(
    check: PartitionCheck,
    extent: tuple[int, int],
    committed: int | None,
    *,
    complete: bool = False,
    earlier_end: int = 0,
) -> PartitionCheck:
    low, end = extent
    return compare_with_topic(
        check, Extent(low=low, end=end), committed, has_head_records=False, earlier_end=earlier_end, complete=complete
    )
