"""A file that appears under its name only when it is whole, with its manifest beside it."""

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from auditstream_schemas.errors import ExportError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Uncompressed:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(path: Path) -> tuple[str | None, _Compressor]:
    """What the last suffix of a name asks for. The same bytes always give the same file: no name, no time."""
    if path.suffix == ".gz":
        return "gzip", zlib.compressobj(level=6, wbits=16 + zlib.MAX_WBITS)
    if path.suffix == ".zst":
        return "zstd", zstd.ZstdCompressor()
    return None, _Uncompressed()


class Digest:
    """Length and SHA-256 of a run of bytes.

    Attributes:
        bytes: Their number so far.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Take the next bytes into account."""
        self.bytes += len(data)
        self._hash.update(data)

    @property
    def sha256(self) -> str:
        """The hash of the bytes so far, hexadecimal."""
        return self._hash.hexdigest()


class ExportFile:
    """The file while it is being written, as ``FILE.part``.

    Attributes:
        name: The file's name, without folders.
        compression: ``gzip`` or ``zstd`` by the file's suffix, or None.
        csv: Digest of the CSV that was written.
        stored: Digest of what lies in the file; complete after `finish`.
    """

    def __init__(self, path: Path, part: IO[bytes]) -> None:
        self.name = path.name
        self._path = path
        self._part = part
        self.compression, self._compressor = _compressor(path)
        self.csv = Digest()
        self.stored = Digest()

    def write(self, data: bytes) -> None:
        """Write a piece of CSV."""
        self.csv.add(data)
        self._store(self._compressor.compress(data))

    def finish(self) -> None:
        """Bring everything to the disk."""
        self._store(self._compressor.flush())
        self._part.flush()
        os.fsync(self._part.fileno())

    def publish(self, manifest: Mapping[str, object]) -> None:
        """Give manifest and file their names.

        The manifest goes first. A crash between the two leaves a manifest that names a file that is not
        there, or (when overwriting) one whose hash the file does not have: either tells. The other way
        round a file could lie there that nothing vouches for.
        """
        beside = manifest_path(self._path)
        with _temporary(beside) as stream:
            stream.write((json.dumps(manifest, ensure_ascii=False, indent=2) + "\n").encode())
            stream.flush()
            os.fsync(stream.fileno())
            _part_path(beside).replace(beside)
        _part_path(self._path).replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _store(self, data: bytes) -> None:
        self._part.write(data)
        self.stored.add(data)


def manifest_path(path: Path) -> Path:
    """Where the manifest of an exported file lies."""
    return path.with_name(f"{path.name}.manifest.json")


@contextmanager
def writing(path: Path, *, overwrite: bool) -> Iterator[ExportFile]:
    """Open ``FILE.part`` for an export; whatever ends the block by an exception removes it.

    Raises:
        ExportError: The file is there already and may not be overwritten, another export is writing it, or
            the disk refuses (full, read-only, no permission).
    """
    if path.is_dir():
        raise ExportError(f"{path} is a directory: name a file in it")
    taken = [found for found in (path, manifest_path(path)) if found.exists()]
    if taken and not overwrite:
        raise ExportError(f"{taken[0]} exists: choose another name, or overwrite it (--force)")
    try:
        with _temporary(path) as part:
            yield ExportFile(path, part)
    except FileExistsError as error:
        raise ExportError(
            f"{error.filename} exists: another export is writing it, or one was killed; remove it in that case"
        ) from error
    except OSError as error:
        raise ExportError(f"cannot write {error.filename or path}: {error.strerror}; nothing was exported") from error


def _part_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


@contextmanager
def _temporary(path: Path) -> Iterator[IO[bytes]]:
    part = _part_path(path)
    with part.open("xb") as stream:
        try:
            yield stream
        except BaseException:
            part.unlink(missing_ok=True)
            raise
