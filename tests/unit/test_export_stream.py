import csv
import io
import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstream_export import retention
from auditstream_export.records import RecordCounter
from auditstream_export.slices import MOST, Slice, cut
from auditstream_schemas.timestamp import parse_timestamp

_CELLS = st.text(st.sampled_from('"\r\n,a{é'), max_size=12)
_ROWS = st.lists(st.tuples(st.sampled_from(["a", "b.c"]), _CELLS, _CELLS), max_size=6)


def _written(rows: list[tuple[str, str, str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


@given(rows=_ROWS, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_records_are_counted_however_the_stream_is_divided(rows: list[tuple[str, str, str]], cuts: list[int]) -> None:
    stream = _written(rows)
    counter = RecordCounter()
    edges = sorted({0, len(stream), *(edge for edge in cuts if edge < len(stream))})
    for start, end in itertools.pairwise(edges):
        counter.feed(stream[start:end])
    assert counter.records == len(rows)
    assert counter.whole
    assert counter.error is None


@given(rows=_ROWS.filter(bool))
def test_a_shortened_stream_has_too_few_records_or_ends_inside_one(rows: list[tuple[str, str, str]]) -> None:
    stream = _written(rows)
    for kept in range(len(stream)):
        counter = RecordCounter()
        counter.feed(stream[:kept])
        assert counter.records < len(rows) or not counter.whole


@pytest.mark.parametrize(
    "exception",
    [
        (
            b"\r\n__exception__\r\nabcdefghijklmnop\r\nCode: 241. DB::Exception: Memory limit\nexceeded\n"
            b"60 abcdefghijklmnop\r\n__exception__\r\n"
        ),
        b"Code: 241. DB::Exception: Memory limit\nexceeded (version 26.9)\n",
    ],
)
@pytest.mark.parametrize("before", [b"", b'"a","b"\r\n', b'"a","b"\r\n"a","'])
def test_an_exception_behind_the_records_is_found(before: bytes, exception: bytes) -> None:
    counter = RecordCounter()
    counter.feed(before)
    counter.feed(exception)
    assert not counter.whole
    assert counter.error == "Code: 241. DB::Exception: Memory limit"


def test_slices_touch_each_other_and_hold_every_hour() -> None:
    hours = [(10, 4), (20, 4), (30, 9), (40, 1), (50, 1)]
    assert list(cut(7, 99, hours, rows=8)) == [
        Slice(start=7, end=30, rows=8),
        Slice(start=30, end=40, rows=9),
        Slice(start=40, end=99, rows=2),
    ]


def test_nothing_makes_no_slice() -> None:
    assert list(cut(0, 9, [])) == []


def test_a_huge_export_has_larger_slices_not_more() -> None:
    hours = [(hour, 1000) for hour in range(10_000)]
    slices = list(cut(0, 10_000, hours, rows=2000))
    assert len(slices) == MOST
    assert sum(part.rows for part in slices) == 10_000_000


@pytest.mark.parametrize(
    ("start", "told"),
    [("2025-02-28T12:00:00Z", False), ("2025-02-28T11:59:59.999999999Z", True), ("2030-01-01T00:00:00Z", False)],
)
def test_a_range_that_begins_before_the_retention_is_told(start: str, *, told: bool) -> None:
    now = datetime(2026, 2, 28, 12, tzinfo=UTC)
    found = retention.notice(parse_timestamp(start), now=now)
    assert (found is not None) is told
    if found is not None:
        assert "back to 2025-02-28T12:00:00Z" in found


def test_twelve_months_before_a_leap_day_is_the_last_of_february() -> None:
    now = datetime(2028, 2, 29, tzinfo=UTC)
    found = retention.notice(0, now=now)
    assert found is not None
    assert "back to 2027-02-28T00:00:00Z" in found
