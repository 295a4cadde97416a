"""Compressing a file in pieces that can each end, and reading it again.

A gzip member, or a zstd frame, ends where an export might be taken up again after a crash; a file of several of
them is one file to every program. The same bytes, ended at the same places, always give the same file: there is
no name in it, and no time.
"""

import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from auditstream_export.formats.output_format import compression_of
from auditstream_schemas.errors import ExportError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE = 1024 * 1024
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError)


class Compressor(Protocol):
    """Compresses; `end` ends what can be read for itself, and the next bytes begin anew."""

    def compress(self, data: bytes) -> bytes:
        """The bytes to store for these, as far as there are any yet."""

    def end(self) -> bytes:
        """What is still to be stored."""


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class _Gzip:
    def __init__(self) -> None:
        self._member: zlib._Compress | None = None

    def compress(self, data: bytes) -> bytes:
        if self._member is None:
            self._member = zlib.compressobj(level=6, wbits=16 + zlib.MAX_WBITS)
        return self._member.compress(data)

    def end(self) -> bytes:
        member, self._member = self._member, None
        return member.flush() if member else b""


class _Zstd:
    def __init__(self) -> None:
        self._frames = zstd.ZstdCompressor()
        self._is_begun = False

    def compress(self, data: bytes) -> bytes:
        self._is_begun = True
        return self._frames.compress(data)

    def end(self) -> bytes:
        is_begun, self._is_begun = self._is_begun, False
        return self._frames.flush(zstd.ZstdCompressor.FLUSH_FRAME) if is_begun else b""


def compressor(name: str) -> Compressor:
    """The one that a file's name asks for."""
    kind = compression_of(name)
    return _Gzip() if kind == "gzip" else _Zstd() if kind == "zstd" else _Plain()


def contents(path: Path, compression: str | None) -> Iterator[bytes]:
    """Yield what a file holds, decompressed, in pieces of up to a megabyte.

    Raises:
        ExportError: It is not of that compression, or breaks off.
        OSError: It cannot be read.
    """
    try:
        with _opened(path, compression) as stream:
            while piece := stream.read(_PIECE):
                yield piece
    except _BROKEN as error:
        raise ExportError(f"{path} is no sound {compression} file: {error}") from error


def _opened(path: Path, compression: str | None) -> IO[bytes]:
    if compression == "gzip":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if compression == "zstd":
        return cast("IO[bytes]", zstd.open(path, "rb"))
    return path.open("rb")
