"""One file of an export while it is being written, under its name with ``.part`` behind."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from auditstream_export.files.compression import compressor, contents
from auditstream_export.files.digests import Digest, RowRanges
from auditstream_export.formats.output_format import OutputFormat, compression_of
from auditstream_export.formats.records import CSV, LINES, Chunk, Records
from auditstream_export.query.statements import header
from auditstream_schemas.errors import ExportError

_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSummary:
    """A finished file.

    Attributes:
        name: Its name, without folders.
        rows: Events in it.
        first_row: Number of its first row in the whole export, from 1.
        bytes: Its length.
        sha256: Of the file, hexadecimal.
        content_bytes: Length of what is in it, decompressed.
        content_sha256: Of that; the file's own unless it is compressed.
        checksums: CRC-32 of every run of ``rows_per_checksum`` rows, hexadecimal; none for parquet.
    """

    name: str
    rows: int
    first_row: int
    bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str
    checksums: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is for good in a file that is not finished.

    Attributes:
        bytes: Its first bytes, so many.
        sha256: Their SHA-256, hexadecimal.
    """

    bytes: int
    sha256: str


class PartFile:
    """The file while it is being written.

    Attributes:
        name: Its name when it is whole.
        path: Where it lies until then.
        rows: Rows so far.
    """

    def __init__(
        self, folder: Path, name: str, shape: OutputFormat, *, first_row: int, range_size: int, kept: Kept | None
    ) -> None:
        """Make it, or take up one of which a length is known to be sound.

        Args:
            folder: Where it lies.
            name: Its name when it is whole; its suffix tells the compression.
            shape: What it looks like.
            first_row: Number of its first row in the whole export.
            range_size: Rows of a run that gets a checksum.
            kept: What of it is there, whole members and rows, which are read again. None for a new file.

        Raises:
            OSError: It is there already, or cannot be read or written.
            ExportError: What is there is not what was written.
        """
        self.name = name
        self.path = part_path(folder / name)
        self.rows = 0
        self._shape = shape
        self._first_row = first_row
        self._ranges = RowRanges(range_size)
        self._compressor = compressor(name)
        self._stored = Digest()
        self._content = Digest() if compression_of(name) else self._stored
        self._stream: IO[bytes]
        if kept:
            self._stream = self.path.open("r+b")
            self._stream.truncate(kept.bytes)
            self._recall(kept)
            self._stream.seek(kept.bytes)
        else:
            self._stream = self.path.open("xb")
            self.write_bytes(header(shape))

    def write(self, chunk: Chunk) -> None:
        """Write whole rows."""
        self.write_bytes(chunk.data)
        self._ranges.add(chunk.data, chunk.starts)
        self.rows += len(chunk.starts)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes that are no rows."""
        if not data:
            return
        if self._content is not self._stored:
            self._content.add(data)
        self._store(self._compressor.compress(data))

    def end_member(self) -> Kept:
        """Let what was written be readable for itself, so that it can be taken up from here; return what it is."""
        self._store(self._compressor.end())
        self._stream.flush()
        return Kept(bytes=self._stored.bytes, sha256=self._stored.sha256)

    def sync(self) -> None:
        """Bring what was written to the disk; blocks. May run beside everything else.

        The system is told that nobody reads it soon: a large export would push ClickHouse's files out of memory.
        """
        os.fsync(self._stream.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Bring everything to the disk, and write no more; after `end_member`."""
        try:
            self.sync()
        finally:
            self._stream.close()

    def abandon(self) -> None:
        """Close it, whatever state it is in."""
        self._stream.close()

    def summary(self, rows: int | None = None) -> FileSummary:
        """What it is; complete after `end_member`.

        Args:
            rows: How many there are, where they were not written as rows.
        """
        return FileSummary(
            name=self.name,
            rows=self.rows if rows is None else rows,
            first_row=self._first_row,
            bytes=self._stored.bytes,
            sha256=self._stored.sha256,
            content_bytes=self._content.bytes,
            content_sha256=self._content.sha256,
            checksums=tuple(self._ranges.checksums),
        )

    def _store(self, data: bytes) -> None:
        if data:
            self._stream.write(data)
            self._stored.add(data)

    def _recall(self, kept: Kept) -> None:
        """Take what is there into account, as if it had just been written."""
        with self.path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                self._stored.add(piece)
        if (self._stored.bytes, self._stored.sha256) != (kept.bytes, kept.sha256):
            self._stream.close()
            raise ExportError(f"{self.path} is not as the export had left it: begin anew (--force)")
        for chunk in rows_of(self.path, self._shape, compression_of(self.name), self._recalled):
            self._ranges.add(chunk.data, chunk.starts)
            self.rows += len(chunk.starts)

    def _recalled(self, piece: bytes) -> None:
        if self._content is not self._stored:
            self._content.add(piece)


def rows_of(
    path: Path, shape: OutputFormat, compression: str | None, seen: Callable[[bytes], object]
) -> Iterator[Chunk]:
    """Yield the rows of a file, without its header, in chunks of about a megabyte.

    Args:
        path: The file.
        shape: What it looks like.
        compression: ``gzip``, ``zstd`` or None.
        seen: Told every piece of its content, header included.

    Raises:
        ExportError: It has no such rows.
        OSError: It cannot be read.
    """
    begin = header(shape)
    records = Records(CSV if shape.format == "csv" else LINES)
    for number, piece in enumerate(contents(path, compression)):
        seen(piece)
        found = piece
        if number == 0:
            if not piece.startswith(begin):
                raise ExportError(f"{path} does not begin with the header of an export")
            found = piece[len(begin) :]
        chunk = records.feed(found)
        if chunk.data:
            yield chunk
    last = records.end()
    if last.data:
        yield last


def part_path(path: Path) -> Path:
    """Where a file lies until it is whole."""
    return path.with_name(f"{path.name}.part")
