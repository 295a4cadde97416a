"""One file of an export while it is being written, named like the final file plus ``.part``."""

import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from auditstream_export.files.compression import Compressor, contents
from auditstream_export.formats import CSV, LINES, Chunk, OutputFormat, Records, compression_of
from auditstream_export.query.statements import header
from auditstream_schemas.errors import ExportError

RANGES = 10_000
"""Checksums per export, about. An export of at most so many rows has one for each row."""


class Digest:
    """Length and SHA-256 of a run of bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Add the next bytes."""
        self.bytes += len(data)
        self._hash.update(data)

    @property
    def sha256(self) -> str:
        """The hash of the bytes so far, hexadecimal."""
        return self._hash.hexdigest()


class RowRanges:
    """CRC-32 of every run of ``size`` rows: locates a difference. Only SHA-256, five times as slow, is a proof."""

    def __init__(self, size: int) -> None:
        self.rows = 0
        self._size = size
        self._whole: list[str] = []
        self._crc = 0

    def add(self, data: bytes, starts: Sequence[int]) -> None:
        """Add whole rows; ``starts`` has the position of the first byte of each, beginning with 0."""
        view, begin = memoryview(data), 0
        edge = self._size - self.rows % self._size
        while edge <= len(starts):
            end = starts[edge] if edge < len(starts) else len(data)
            self._whole.append(f"{zlib.crc32(view[begin:end], self._crc):08x}")
            self._crc, begin = 0, end
            edge += self._size
        self._crc = zlib.crc32(view[begin:], self._crc)
        self.rows += len(starts)

    @property
    def checksums(self) -> list[str]:
        """One per run so far, hexadecimal; the last run may have fewer rows."""
        return [*self._whole, f"{self._crc:08x}"] if self.rows % self._size else list(self._whole)


def range_size(rows: int) -> int:
    """Rows per run in an export of this many rows."""
    return max(1, -(-rows // RANGES))


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
        checksums: CRC-32 of every run of ``rows_per_checksum`` rows, hexadecimal; none for parquet or a stream.
    """

    name: str
    rows: int
    first_row: int = 1
    bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str
    checksums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Length and SHA-256 (hexadecimal) of the start of an unfinished file, after which it can be resumed."""

    bytes: int
    sha256: str


class PartFile:
    """A file while it is being written. ``path`` is the path of the part file, ``rows`` the number of rows so far."""

    def __init__(
        self, path: Path, output_format: OutputFormat, *, first_row: int, range_size: int, checkpoint: Checkpoint | None
    ) -> None:
        """Create the part file of ``path``; with a checkpoint, truncate the existing one there and resume it."""
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

    def close(self, *, sync: bool = True) -> None:
        """Close the file. Call `end_member` before, unless the file is abandoned."""
        try:
            if sync:
                self.sync()
        finally:
            self._stream.close()

    def summary(self) -> FileSummary:
        """Describe the file; call `end_member` before."""
        return FileSummary(
            name=self._name,
            rows=self.rows,
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
            raise ExportError(f"{self.path} was changed after the export broke off: begin anew (--force)")
        content = None if self._content is self._stored else self._content
        for chunk in rows_of(self.path, self._output_format, compression_of(self._name), content):
            self._ranges.add(chunk.data, chunk.starts)
            self.rows += len(chunk.starts)


def rows_of(
    path: Path, output_format: OutputFormat, compression: str | None, content: Digest | None = None
) -> Iterator[Chunk]:
    """Yield the rows of a file, without its header, in chunks of about a megabyte.

    The decompressed content, including the header, is added to the digest ``content``. Raises ExportError if the file
    does not consist of rows of this format.
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
    if (last := records.end()).data:
        yield last


def part_path(path: Path) -> Path:
    """Path of the part file of this file."""
    return path.with_name(f"{path.name}.part")
