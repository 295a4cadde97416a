"""Compresses a file as a sequence of gzip members or zstd frames, and reads it again.

A member ends where an export can be resumed after a crash. Every program reads a file of several members as one. The
same bytes with the same ends always give the same file, because it contains no name and no time.
"""

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from auditstream_export.formats import compression_of
from auditstream_schemas.errors import ExportError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 1024 * 1024
_OPEN: dict[str | None, Callable[..., IO[bytes]]] = {None: open, "gzip": gzip.open, "zstd": zstd.open}  # type: ignore[dict-item]
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError)


class Compressor:
    """Compresses bytes into members that can be read on their own. The suffix of the file's name selects the method."""

    def __init__(self, name: str) -> None:
        self._compression = compression_of(name)
        self._member: zlib._Compress | zstd.ZstdCompressor | None = None

    def compress(self, data: bytes) -> bytes:
        """Return the compressed bytes that are ready; the rest stays in a buffer."""
        if self._compression is None:
            return data
        if self._member is None:
            is_gzip = self._compression == "gzip"
            self._member = zlib.compressobj(level=6, wbits=16 + zlib.MAX_WBITS) if is_gzip else zstd.ZstdCompressor()
        return self._member.compress(data)

    def end(self) -> bytes:
        """End the member and return its last bytes; the next call of `compress` begins another."""
        member, self._member = self._member, None
        return member.flush() if member else b""


def pieces_of(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a stream in pieces of up to a megabyte."""
    while piece := stream.read(PIECE_BYTES):
        yield piece


def contents(path: Path, compression: str | None) -> Iterator[bytes]:
    """Yield the decompressed content of a file in pieces. Raises ExportError if it is malformed or breaks off."""
    try:
        with _OPEN[compression](path, "rb") as stream:
            yield from pieces_of(stream)
    except _BROKEN as error:
        raise ExportError(f"{path} is not a valid {compression} file: {error}") from error
