"""A request's body: decompressed, its statement split from its data, the data spooled to a file.

An insert's data goes to a file before the engine sees any of it: a client that drops its connection half-way
has inserted nothing, and memory stays flat whatever the size.
"""

import itertools
import os
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import lz4.frame

from auditstream_local.clickhouse_errors import CANNOT_DECOMPRESS, ClickHouseError
from auditstream_local.clickhouse_statement import Head, InsertHead, read_insert_head

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_QUERY_BYTES = 256 * 1024 * 1024
_GZIP_WINDOW = 31


class Decompressor(Protocol):
    """What zlib, zstd and lz4 have in common."""

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""

    @property
    def unused_data(self) -> bytes | None:
        """What came behind the end of the frame."""

    def decompress(self, data: bytes, /) -> bytes:
        """Return what more of the frame holds."""


_DECOMPRESSORS: dict[str, Callable[[], Decompressor]] = {
    "gzip": lambda: zlib.decompressobj(_GZIP_WINDOW),
    "x-gzip": lambda: zlib.decompressobj(_GZIP_WINDOW),
    "deflate": zlib.decompressobj,
    "zstd": zstd.ZstdDecompressor,
    "lz4": lz4.frame.LZ4FrameDecompressor,
}
_DECOMPRESSION_ERRORS = (zlib.error, zstd.ZstdError, RuntimeError, EOFError)


class Decoder:
    """Undo a ``Content-Encoding``, of any number of frames."""

    def __init__(self, encoding: str) -> None:
        """Choose the encoding; empty or ``identity`` for none.

        Raises:
            ClickHouseError: Unknown encoding.
        """
        self._encoding = encoding.strip().lower()
        self._make: Callable[[], Decompressor] | None = None
        if self._encoding not in {"", "identity"}:
            self._make = _DECOMPRESSORS.get(self._encoding)
            if self._make is None:
                known = ", ".join(_DECOMPRESSORS)
                raise ClickHouseError.of(
                    89, "UNKNOWN_COMPRESSION_METHOD", f"Content-Encoding {encoding!r}: the local stack reads {known}"
                )
        self._frame: Decompressor | None = None

    def decode(self, data: bytes) -> bytes:
        """Return what these bytes hold.

        Raises:
            ClickHouseError: They are not of the encoding.
        """
        if self._make is None:
            return data
        parts = []
        while data:
            if self._frame is None:
                self._frame = self._make()
            try:
                parts.append(self._frame.decompress(data))
            except _DECOMPRESSION_ERRORS as error:
                raise self._broken(str(error)) from error
            data = b""
            if self._frame.eof:
                data, self._frame = self._frame.unused_data or b"", None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """Make sure that nothing is missing.

        Raises:
            ClickHouseError: The last frame has no end.
        """
        if self._frame is not None:
            raise self._broken("it ends within a frame")

    def _broken(self, why: str) -> ClickHouseError:
        return ClickHouseError.of(
            CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", f"the body cannot be decompressed as {self._encoding}: {why}"
        )


class Spool:
    """The directory of the files and pipes that requests need while they run."""

    def __init__(self, data_dir: Path) -> None:
        """Make it, and remove what a killed process left there."""
        self.directory = (data_dir / "spool").resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        for left in self.directory.iterdir():
            left.unlink()
        self._numbers = itertools.count()

    def new_path(self) -> Path:
        """Return a path that nothing has."""
        return self.directory / str(next(self._numbers))

    def buffer(self, in_memory: int) -> "tempfile.SpooledTemporaryFile[bytes]":
        """Return a file that stays in memory up to a number of bytes."""
        return tempfile.SpooledTemporaryFile(max_size=in_memory, mode="w+b", dir=str(self.directory))


class BatchBuilder:
    """Takes in a statement and its data, piece by piece.

    Attributes:
        insert: The statement, when it has data behind it; known when all is taken in.
        path: File of the data.
    """

    def __init__(self, start: bytes, decoder: Decoder, spool: Spool) -> None:
        """Start with what the URL holds of the statement; nothing is written yet."""
        self._text = bytearray(start)
        self._decoder = decoder
        self._spool = spool
        self._file: int | None = None
        self._decided = False
        self._look_at = 0
        # A shutdown may discard it while a thread still feeds it.
        self._lock = threading.Lock()
        self._discarded = False
        self.insert: InsertHead | None = None
        self.path: Path | None = None

    @property
    def text(self) -> bytes:
        """The statement, when it has no data behind it."""
        return bytes(self._text)

    def feed(self, data: bytes) -> None:
        """Take in more of the body. Blocks on the disk.

        Raises:
            ClickHouseError: It cannot be decompressed, or the statement is one that is refused or too long.
        """
        with self._lock:
            if not self._discarded:
                self._take(self._decoder.decode(data))

    def finish(self) -> None:
        """Take note that the body is complete.

        Raises:
            ClickHouseError: It is cut short, or the statement is one that is refused.
        """
        self._decoder.finish()
        if not self._decided:
            self._look(final=True)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def discard(self) -> None:
        """Remove the data. May be called more than once."""
        with self._lock:
            self._discarded = True
            if self._file is not None:
                os.close(self._file)
                self._file = None
            if self.path is not None:
                self.path.unlink(missing_ok=True)
                self.path = None

    def _take(self, plain: bytes) -> None:
        if self._file is not None:
            _write(self._file, plain)
            return
        self._text += plain
        if not self._decided and len(self._text) >= self._look_at:
            self._look(final=False)
        if len(self._text) > MAX_QUERY_BYTES:
            raise ClickHouseError.of(
                229, "QUERY_IS_TOO_LARGE", f"a statement may have {MAX_QUERY_BYTES} bytes: put data behind FORMAT"
            )

    def _look(self, *, final: bool) -> None:
        head = read_insert_head(bytes(self._text), final=final)
        # Looked at again when twice as much is there, so that a long text costs no more than two looks.
        self._look_at = 2 * len(self._text)
        if isinstance(head, InsertHead):
            self.insert = head
            self.path = self._spool.new_path()
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            _write(self._file, memoryview(self._text)[head.data_at :])
            self._text = bytearray()
        self._decided = head is not Head.INCOMPLETE


def _write(file: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError as error:
        raise ClickHouseError.of(
            243, "NOT_ENOUGH_SPACE", f"cannot keep the data of the insert: {error.strerror}"
        ) from error
