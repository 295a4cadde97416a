"""A response's parts: its compression, its headers, and the pipe through which a result comes.

The engine writes a result into a named pipe (``INTO OUTFILE``), in any format, header and footer where they
belong; the pipe holds at most 1 MiB, so a slow client slows the query down and memory stays flat.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import lz4.frame

from auditstream_local.clickhouse_engine import Outcome

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = 1024 * 1024
_GZIP_WINDOW = 31


class Encoder(Protocol):
    """Compresses a response; nothing is held back for later."""

    def compress(self, data: bytes) -> bytes:
        """Return the bytes to send for these."""

    def flush(self) -> bytes:
        """Return the end of the frame."""


class _Zlib:
    def __init__(self, window: int) -> None:
        self._frame = zlib.compressobj(3, zlib.DEFLATED, window)

    def compress(self, data: bytes) -> bytes:
        return self._frame.compress(data) + self._frame.flush(zlib.Z_SYNC_FLUSH)

    def flush(self) -> bytes:
        return self._frame.flush()


class _Zstd:
    def __init__(self) -> None:
        self._frame = zstd.ZstdCompressor(1)

    def compress(self, data: bytes) -> bytes:
        return self._frame.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK)

    def flush(self) -> bytes:
        return self._frame.flush()


class _Lz4:
    def __init__(self) -> None:
        self._frame: Any = lz4.frame.LZ4FrameCompressor(auto_flush=True)
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        return self._start() + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        return self._start() + bytes(self._frame.flush())

    def _start(self) -> bytes:
        begun, self._begun = self._begun, True
        return b"" if begun else bytes(self._frame.begin())


# In the order of preference.
_ENCODERS: dict[str, Callable[[], Encoder]] = {
    "lz4": _Lz4,
    "zstd": _Zstd,
    "gzip": lambda: _Zlib(_GZIP_WINDOW),
    "deflate": lambda: _Zlib(zlib.MAX_WBITS),
}


def choose_encoder(accept_encoding: str) -> tuple[str, Encoder] | None:
    """Return the name and the encoder of the best compression that a client takes, if any."""
    accepted = {part.partition(";")[0].strip().lower() for part in accept_encoding.split(",")}
    for name, make in _ENCODERS.items():
        if name in accepted:
            return name, make()
    return None


def summary(outcome: Outcome | None, result_bytes: int = 0) -> str:
    """Return the value of ``X-ClickHouse-Summary``; zeros while the query still runs."""
    numbers = {
        "read_rows": outcome.rows_read if outcome else 0,
        "read_bytes": outcome.bytes_read if outcome else 0,
        "written_rows": outcome.rows_written if outcome else 0,
        "written_bytes": outcome.bytes_written if outcome else 0,
        "total_rows_to_read": 0,
        "result_rows": outcome.rows_written if outcome else 0,
        "result_bytes": outcome.bytes_written or result_bytes if outcome else 0,
        "elapsed_ns": outcome.elapsed_ns if outcome else 0,
    }
    return json.dumps({key: str(value) for key, value in numbers.items()}, separators=(",", ":"))


class ResultPipe:
    """A named pipe that the engine writes to and the event loop reads from.

    It has an end only after :meth:`end`: before the engine opens it and after the engine closes it, a writing
    end of our own keeps it open.
    """

    def __init__(self, path: Path) -> None:
        """Make the pipe.

        Raises:
            OSError: Out of file descriptors or disk.
        """
        self.path = path
        os.mkfifo(path, 0o600)
        self._reader = -1
        self._writer: int | None = None
        try:
            self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise
        if sys.platform == "linux":
            # Beyond a limit of pages a user, pipes stay small: slower, but as good.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, CHUNK)

    async def read(self) -> bytes:
        """Return what there is, up to 1 MiB; wait for some. Empty at the end."""
        while True:
            try:
                return os.read(self._reader, CHUNK)
            except BlockingIOError:
                await self._readable()

    def end(self) -> None:
        """Let the pipe end: the engine is done with it."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def empty(self) -> None:
        """Throw away what there is."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, CHUNK):
                pass

    def close(self) -> None:
        """Remove the pipe; an engine that still writes to it gets nowhere."""
        self.end()
        if self._reader != -1:
            os.close(self._reader)
        self.path.unlink(missing_ok=True)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._reader, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._reader)
