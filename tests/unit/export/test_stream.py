import csv
import io
import itertools
import json
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstream_export.files import RowRanges
from auditstream_export.formats import CSV, LINES, Layout, Records
from auditstream_export.query.snapshot import MAX_SLICES, Slice, cut
from auditstream_schemas.errors import ExportError
from auditstream_schemas.timestamp import parse_timestamp
from auditstream_storage import retention

_CELLS = st.text(st.sampled_from('"\r\n,a{é'), max_size=12)
_ROWS = st.lists(st.tuples(st.sampled_from(["a", "b.c"]), _CELLS, _CELLS), max_size=6)


def _written(rows: list[tuple[str, str, str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _read(records: Records, stream: bytes, cuts: list[int]) -> list[bytes]:
    """The records, one by one, of a stream that comes in pieces."""
    edges = sorted({0, len(stream), *(edge for edge in cuts if edge < len(stream))})
    chunks = [records.feed(stream[start:end]) for start, end in itertools.pairwise(edges)]
    return [
        chunk.data[start:end]
        for chunk in [*chunks, records.end()]
        for start, end in itertools.pairwise([*chunk.starts, len(chunk.data)])
    ]


@given(rows=_ROWS, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_records_are_the_same_however_the_stream_is_divided(rows: list[tuple[str, str, str]], cuts: list[int]) -> None:
    assert _read(Records(CSV), _written(rows), cuts) == [_written([row]) for row in rows]


@given(rows=_ROWS.filter(bool))
def test_a_shortened_stream_has_too_few_records_or_ends_inside_one(rows: list[tuple[str, str, str]]) -> None:
    stream = _written(rows)
    for length in range(len(stream)):
        try:
            records = _read(Records(CSV), stream[:length], [])
        except ExportError:
            continue
        assert len(records) < len(rows)


@given(texts=st.lists(st.text(max_size=5), max_size=6), cuts=st.lists(st.integers(0, 200), max_size=8))
def test_lines_are_the_same_however_the_stream_is_divided(texts: list[str], cuts: list[int]) -> None:
    lines = [json.dumps({"action": text}, separators=(",", ":")).encode() + b"\n" for text in texts]
    assert _read(Records(LINES), b"".join(lines), cuts) == lines


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
@pytest.mark.parametrize(
    ("layout", "before"),
    [
        *((CSV, before) for before in (b"", b'"a","b"\r\n', b'"a","b"\r\n"a","')),
        *((LINES, before) for before in (b"", b'{"action":1}\n', b'{"action":1}\n{"action":')),
    ],
)
def test_an_exception_after_the_records_is_detected(layout: Layout, before: bytes, exception: bytes) -> None:
    records = Records(layout)
    records.feed(before)
    records.feed(exception)
    with pytest.raises(ExportError, match=r"^Code: 241\. DB::Exception: Memory limit$"):
        records.end()


@given(
    rows=st.lists(st.binary(min_size=1, max_size=4), max_size=30),
    size=st.integers(1, 8),
    cuts=st.sets(st.integers(0, 30)),
)
def test_a_run_of_rows_has_one_checksum_however_it_is_divided(rows: list[bytes], size: int, cuts: set[int]) -> None:
    ranges = RowRanges(size)
    edges = sorted({0, len(rows), *(edge for edge in cuts if edge < len(rows))})
    for begin, end in itertools.pairwise(edges):
        part = rows[begin:end]
        ranges.add(b"".join(part), [sum(map(len, part[:number])) for number in range(len(part))])
    runs = (b"".join(rows[begin : begin + size]) for begin in range(0, len(rows), size))
    assert ranges.checksums == [f"{zlib.crc32(run):08x}" for run in runs]


def test_slices_have_no_gaps_and_contain_every_hour() -> None:
    hours = [(10, 4), (20, 4), (30, 9), (40, 1), (50, 1)]
    assert list(cut(7, 99, hours, rows=8)) == [
        Slice(start=7, end=30, rows=8),
        Slice(start=30, end=40, rows=9),
        Slice(start=40, end=99, rows=2),
    ]


def test_a_range_without_events_has_no_slices() -> None:
    assert list(cut(0, 9, [])) == []


def test_a_huge_export_has_larger_slices_not_more() -> None:
    hours = [(hour, 1000) for hour in range(10_000)]
    slices = list(cut(0, 10_000, hours, rows=2000))
    assert len(slices) == MAX_SLICES
    assert sum(part.rows for part in slices) == 10_000_000


@pytest.mark.parametrize(
    ("start", "has_notice"),
    [("2025-02-28T12:00:00Z", False), ("2025-02-28T11:59:59.999999999Z", True), ("2030-01-01T00:00:00Z", False)],
)
def test_a_range_that_begins_before_the_retention_has_a_notice(start: str, *, has_notice: bool) -> None:
    now = datetime(2026, 2, 28, 12, tzinfo=UTC)
    notice = retention.notice(parse_timestamp(start), now=now)
    assert (notice is not None) is has_notice
    if notice is not None:
        assert "back to 2025-02-28T12:00:00Z" in notice


def test_twelve_months_before_a_leap_day_is_the_last_of_february() -> None:
    now = datetime(2028, 2, 29, tzinfo=UTC)
    notice = retention.notice(0, now=now)
    assert notice is not None
    assert "back to 2027-02-28T00:00:00Z" in notice
