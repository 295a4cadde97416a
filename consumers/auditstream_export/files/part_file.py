"""One file of an export while it is being written, named like the final file plus ``.part``."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from auditstream_export.files.compression import Compressor, contents
from auditstream_export.files.digests import Digest, RowRanges
from auditstream_export.formats import CSV, LINES, Chunk, OutputFormat, Records, compression_of
from auditstream_export.query.statements import header
from auditstream_schemas.errors import ExportError


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSummary:
    """A finished file.

    Attributes:
        name: Name without directories.
        rows: Number of events.
        first_row: Number of its first row in the whole export, from 1.
        bytes: Length of the file.
        sha256: SHA-256 of the file, hexadecimal.
        content_bytes: Length of the decompressed content.
        content_sha256: SHA-256 of the decompressed content, hexadecimal.
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
class Checkpoint:
    """The start of an unfinished file up to which it can be resumed.

    Attributes:
        bytes: Length of the start.
        sha256: SHA-256 of these bytes, hexadecimal.
    """

    bytes: int
    sha256: str


class PartFile:
    """A file while it is being written; ``path`` is that of the part file, ``rows`` counts its rows so far."""

    def __init__(
        self, path: Path, output_format: OutputFormat, *, first_row: int, range_size: int, checkpoint: Checkpoint | None
    ) -> None:
        """Create the part file of ``path``; with a checkpoint, truncate it there and resume it.

        Raises:
            OSError: A new part file exists already, or the file cannot be read or written.
            ExportError: The start of the part file is not what was written.
        """
        self.path = part_path(path)
        self.rows = 0
        self._name = path.name
        self._output_format = output_format
        self._first_row = first_row
        self._ranges = RowRanges(range_size)
        self._compressor = Compressor(path.name)
        self._stored = Digest()
        self._content = Digest() if compression_of(path.name) else self._stored
        self._stream: IO[bytes]
        if checkpoint:
            self._stream = self.path.open("r+b")
            self._stream.truncate(checkpoint.bytes)
            self._read_again(checkpoint)
            self._stream.seek(checkpoint.bytes)
        else:
            self._stream = self.path.open("xb")
            self.write_bytes(header(output_format))

    def write(self, chunk: Chunk) -> None:
        """Write whole rows."""
        self.write_bytes(chunk.data)
        self._ranges.add(chunk.data, chunk.starts)
        self.rows += len(chunk.starts)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes that are not counted as rows."""
        if not data:
            return
        if self._content is not self._stored:
            self._content.add(data)
        self._store(self._compressor.compress(data))

    def end_member(self) -> Checkpoint:
        """End the compressed member, so that the file can be resumed from here."""
        self._store(self._compressor.end())
        self._stream.flush()
        return Checkpoint(bytes=self._stored.bytes, sha256=self._stored.sha256)

    def sync(self) -> None:
        """Sync the file to the disk; blocks. Safe in another thread while rows are written.

        The pages are dropped from the page cache: a large export would displace ClickHouse's files.
        """
        os.fsync(self._stream.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Sync and close the file; call `end_member` before."""
        try:
            self.sync()
        finally:
            self._stream.close()

    def abandon(self) -> None:
        """Close the file without a sync."""
        self._stream.close()

    def summary(self, rows: int | None = None) -> FileSummary:
        """Describe the file; call `end_member` before. ``rows`` is given if they were not written with `write`."""
        return FileSummary(
            name=self._name,
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

    def _read_again(self, checkpoint: Checkpoint) -> None:
        """Restore digests and row count from the part file."""
        for piece in contents(self.path, None):
            self._stored.add(piece)
        if (self._stored.bytes, self._stored.sha256) != (checkpoint.bytes, checkpoint.sha256):
            self._stream.close()
            raise ExportError(f"{self.path} is not as the export had left it: begin anew (--force)")
        content = None if self._content is self._stored else self._content
        for chunk in rows_of(self.path, self._output_format, compression_of(self._name), content):
            self._ranges.add(chunk.data, chunk.starts)
            self.rows += len(chunk.starts)


def rows_of(
    path: Path, output_format: OutputFormat, compression: str | None, content: Digest | None = None
) -> Iterator[Chunk]:
    """Yield the rows of a file, without its header, in chunks of about a megabyte.

    The decompressed content, header included, is added to the digest ``content``.

    Raises:
        ExportError: The file does not consist of such rows.
        OSError: The file cannot be read.
    """
    expected = header(output_format)
    records = Records(CSV if output_format.format == "csv" else LINES)
    for number, piece in enumerate(contents(path, compression)):
        if content is not None:
            content.add(piece)
        if number == 0 and not piece.startswith(expected):
            raise ExportError(f"{path} does not begin with the header of an export")
        chunk = records.feed(piece if number else piece[len(expected) :])
        if chunk.data:
            yield chunk
    last = records.end()
    if last.data:
        yield last


def part_path(path: Path) -> Path:
    """Path of the part file of this file."""
    return path.with_name(f"{path.name}.part")
