"""An export that broke off is resumed at its last checkpoint, and its files are the same."""

import gzip
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditstream_export.files import journal_path, open_writer
from auditstream_export.formats import OutputFormat
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


def _break_off(path: Path, output_format: OutputFormat, *, after: int) -> None:
    """Leave the files of a crash in the middle of a slice."""
    with suppress(KeyboardInterrupt), open_writer(path, overwrite=False, resume=False) as writer:
        write_slices(writer, SLICES[:after], output_format)
        writer.write(chunk(SLICES[after][:4]))
        raise KeyboardInterrupt


@pytest.mark.parametrize("split_rows", [None, 4, 10, 15])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_resumed_export_has_the_same_files_as_an_uninterrupted_one(
    tmp_path: Path, suffix: str, split_rows: int | None
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    output_format = OutputFormat(split_rows=split_rows)
    for folder in (whole, broken):
        folder.mkdir()
    write_export(whole / f"all.csv{suffix}", SLICES, output_format=output_format)
    for after in (1, 2):
        _break_off(broken / f"all.csv{suffix}", output_format, after=after)
        # Without resume, another export to that name is refused.
        with (
            pytest.raises(ExportError, match="--resume goes on with it, --force begins anew"),
            open_writer(broken / f"all.csv{suffix}", overwrite=False, resume=False),
        ):
            pass
        write_export(broken / f"all.csv{suffix}", SLICES, output_format=output_format, resume=True)
        assert _files(broken) == _files(whole)
        for path in broken.iterdir():
            path.unlink()


def test_files_are_compressed_as_their_suffix_says(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".zst"):
        write_export(tmp_path / f"all.csv{suffix}", SLICES)
    plain = header(OutputFormat()) + b"".join(row for rows in SLICES for row in rows)
    assert (tmp_path / "all.csv").read_bytes() == plain
    assert gzip.decompress((tmp_path / "all.csv.gz").read_bytes()) == plain
    assert zstd.decompress((tmp_path / "all.csv.zst").read_bytes()) == plain


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 40), split_rows=st.integers(1, 12), most=st.integers(1, 20))
def test_each_file_of_a_split_export_has_its_rows_and_a_header(
    tmp_path_factory: pytest.TempPathFactory, count: int, split_rows: int, most: int
) -> None:
    folder = tmp_path_factory.mktemp("split")
    rows = [csv_row(number) for number in range(count)]
    slices = [rows[begin : begin + most] for begin in range(0, count, most)]
    write_export(folder / "all.csv", slices, output_format=OutputFormat(split_rows=split_rows))
    contents = [path.read_bytes() for path in sorted(folder.glob("all-*.csv"))]
    expected = [rows[begin : begin + split_rows] for begin in range(0, count, split_rows)] or [[]]
    assert contents == [header(OutputFormat()) + b"".join(part) for part in expected]


def test_an_export_that_breaks_off_before_the_first_checkpoint_leaves_no_files(tmp_path: Path) -> None:
    _break_off(tmp_path / "all.csv", OutputFormat(split_rows=2), after=0)
    assert list(tmp_path.iterdir()) == []


def test_a_second_export_to_the_same_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    with open_writer(path, overwrite=False, resume=False) as writer:
        write_slices(writer, SLICES[:1], OutputFormat())
        for resume, overwrite in ((False, True), (True, False), (False, False)):
            with (
                pytest.raises(ExportError, match="is being written by another export"),
                open_writer(path, overwrite=overwrite, resume=resume),
            ):
                pass
        assert path.with_name("all.csv.part").exists()
        writer.abandon()


def test_overwrite_deletes_an_unfinished_export(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    _break_off(path, OutputFormat(split_rows=4), after=2)
    with open_writer(path, overwrite=True, resume=False) as writer:
        assert (writer.plan, writer.slices_done) == (None, 0)
        assert [file.name for file in tmp_path.iterdir()] == ["all.csv.part.journal"]


def test_an_incomplete_last_line_of_the_journal_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    write_export(tmp_path / "whole.csv", SLICES)
    _break_off(path, OutputFormat(), after=2)
    journal = journal_path(path)
    # A power cut may leave an incomplete line.
    os.truncate(journal, journal.stat().st_size - 5)
    write_export(path, SLICES, resume=True)
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with pytest.raises(ExportError, match="no unfinished export"), open_writer(path, overwrite=False, resume=True):
        pass


def test_a_part_file_that_was_changed_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    _break_off(path, OutputFormat(), after=2)
    part = path.with_name("all.csv.part")
    part.write_bytes(part.read_bytes().replace(b'""number"":3', b'""number"":4', 1))
    with pytest.raises(ExportError, match="was changed after the export broke off"):
        write_export(path, SLICES, resume=True)
    assert not path.exists()
    with open_writer(path, overwrite=True, resume=False) as writer:
        assert writer.plan is None
