"""The rule that a ledger's counts add up."""

import pytest

from auditstream_storage import LedgerCounts, LedgerLine, LedgerTotals


@pytest.mark.parametrize(
    ("counts", "offsets", "adds_up"),
    [
        (LedgerCounts(), 1, True),
        (LedgerCounts(read=5, stored=1, duplicates=1, conflicts=1, invalid=1, expired=1), 5, True),
        (LedgerCounts(read=5, stored=5), 9, True),
        (LedgerCounts(read=5, stored=5), 4, False),
        (LedgerCounts(read=5, stored=4), 5, False),
        (LedgerCounts(read=5, stored=6), 9, False),
        (LedgerCounts(lost=3), 3, True),
        (LedgerCounts(read=1, stored=1, lost=3), 3, False),
    ],
)
def test_counts_add_up_when_each_record_has_one_status_and_an_offset(
    counts: LedgerCounts, offsets: int, *, adds_up: bool
) -> None:
    assert counts.adds_up(offsets) is adds_up


def test_totals_are_the_sums_of_their_lines() -> None:
    line = LedgerLine(partition=0, fencing_time=1, first_offset=0, last_offset=4, read=3, stored=2, invalid=1)
    totals = LedgerTotals().with_line(line).with_line(line)
    assert totals == LedgerTotals(batches=2, read=6, stored=4, invalid=2)
