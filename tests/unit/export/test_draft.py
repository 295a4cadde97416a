"""An export that breaks off is taken up where it was, and comes out the same."""

import gzip
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditstream_export.files.draft import drafting, journal_path
from auditstream_export.formats.output_format import OutputFormat
from auditstream_export.query.statements import header
from auditstream_schemas.errors import ExportError
from tests.support.export_files import chunk, csv_row, write_export, write_slices

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SLICES = [[csv_row(number) for number in range(begin, begin + 10)] for begin in (0, 10, 20)]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _break_off(path: Path, shape: OutputFormat, *, after: int) -> None:
    """Leave what a crash would that comes in the middle of a slice."""
    with suppress(KeyboardInterrupt), drafting(path, overwrite=False, resume=False) as draft:
        write_slices(draft, SLICES[:after], shape)
        draft.write(chunk(SLICES[after][:4]))
        raise KeyboardInterrupt


@pytest.mark.parametrize("split_rows", [None, 4, 10, 15])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_what_is_resumed_is_as_if_nothing_had_happened(tmp_path: Path, suffix: str, split_rows: int | None) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    shape = OutputFormat(split_rows=split_rows)
    for folder in (whole, broken):
        folder.mkdir()
    write_export(whole / f"all.csv{suffix}", SLICES, shape=shape)
    for after in (1, 2):
        _break_off(broken / f"all.csv{suffix}", shape, after=after)
        # The next export to that name is a new one, unless it is told to resume.
        with (
            pytest.raises(ExportError, match="--resume goes on with it, --force begins anew"),
            drafting(broken / f"all.csv{suffix}", overwrite=False, resume=False),
        ):
            pass
        write_export(broken / f"all.csv{suffix}", SLICES, shape=shape, resume=True)
        assert _files(broken) == _files(whole)
        for path in broken.iterdir():
            path.unlink()


def test_the_files_are_those_of_their_formats(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".zst"):
        write_export(tmp_path / f"all.csv{suffix}", SLICES)
    plain = header(OutputFormat()) + b"".join(row for rows in SLICES for row in rows)
    assert (tmp_path / "all.csv").read_bytes() == plain
    assert gzip.decompress((tmp_path / "all.csv.gz").read_bytes()) == plain
    assert zstd.decompress((tmp_path / "all.csv.zst").read_bytes()) == plain


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 40), split_rows=st.integers(1, 12), most=st.integers(1, 20))
def test_files_of_several_have_their_rows_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, count: int, split_rows: int, most: int
) -> None:
    folder = tmp_path_factory.mktemp("split")
    rows = [csv_row(number) for number in range(count)]
    slices = [rows[begin : begin + most] for begin in range(0, count, most)]
    write_export(folder / "all.csv", slices, shape=OutputFormat(split_rows=split_rows))
    found = [path.read_bytes() for path in sorted(folder.glob("all-*.csv"))]
    expected = [rows[begin : begin + split_rows] for begin in range(0, count, split_rows)] or [[]]
    assert found == [header(OutputFormat()) + b"".join(part) for part in expected]


def test_before_the_first_slice_is_done_nothing_is_left(tmp_path: Path) -> None:
    _break_off(tmp_path / "all.csv", OutputFormat(split_rows=2), after=0)
    assert list(tmp_path.iterdir()) == []


def test_two_exports_to_one_name_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    with drafting(path, overwrite=False, resume=False) as draft:
        write_slices(draft, SLICES[:1], OutputFormat())
        for resume, overwrite in ((False, True), (True, False), (False, False)):
            with (
                pytest.raises(ExportError, match="is being written by another export"),
                drafting(path, overwrite=overwrite, resume=resume),
            ):
                pass
        assert path.with_name("all.csv.part").exists()
        draft.abandon()


def test_force_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    _break_off(path, OutputFormat(split_rows=4), after=2)
    with drafting(path, overwrite=True, resume=False) as draft:
        assert (draft.plan, draft.slices_done) == (None, 0)
        assert [each.name for each in tmp_path.iterdir()] == ["all.csv.part.journal"]


def test_a_journal_line_that_broke_off_was_not_written(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    write_export(tmp_path / "whole.csv", SLICES)
    _break_off(path, OutputFormat(), after=2)
    journal = journal_path(path)
    # As a power cut may leave it.
    os.truncate(journal, journal.stat().st_size - 5)
    write_export(path, SLICES, resume=True)
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with pytest.raises(ExportError, match="no unfinished export"), drafting(path, overwrite=False, resume=True):
        pass


def test_what_was_changed_in_the_meantime_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    _break_off(path, OutputFormat(), after=2)
    part = path.with_name("all.csv.part")
    part.write_bytes(part.read_bytes().replace(b'""number"":3', b'""number"":4', 1))
    with pytest.raises(ExportError, match="is not as the export had left it"):
        write_export(path, SLICES, resume=True)
    assert not path.exists()
    with drafting(path, overwrite=True, resume=False) as draft:
        assert draft.plan is None
