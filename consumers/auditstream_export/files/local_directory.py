"""A directory of export files on the local disk."""

import os
import shutil
from collections.abc import Generator
from pathlib import Path

from auditstream_export.files.compression import pieces_of
from auditstream_schemas.errors import ExportError


class LocalDirectory:
    """A directory on the local disk. Names may contain subdirectories.

    `BucketDirectory` has the same methods. They block on the disk or the network, and raise ExportError if it fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def display_name(self, name: str) -> str:
        """The path or address of a file, which `split_target` accepts."""
        return str(self._path / name)

    def local_path(self, name: str) -> Path:
        """A path on the local disk, in an existing directory; the part files of an export are written beside it."""
        path = self._path / name
        if "/" in name:
            make_directory(path.parent, "AUDITSTREAM_EXPORT_TARGET")
        return path

    def exists(self, name: str) -> bool:
        """Whether the file exists."""
        return (self._path / name).exists()

    def publish(self, part: Path, name: str) -> None:
        """Move or upload a complete local file to this name. Readers see the whole file or no file."""
        part.replace(self._path / name)

    def finish(self, name: str) -> None:
        """Make the published files of an export to this name durable, and delete its spool."""
        directory = os.open((self._path / name).parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def read(self, name: str) -> Generator[bytes]:
        """Open a file, which may raise ExportError, and yield its content in pieces of about a megabyte."""
        path = self._path / name
        try:
            stream = path.open("rb")
        except OSError as error:
            raise ExportError(f"cannot read {path}: {error.strerror}") from error

        def pieces() -> Generator[bytes]:
            with stream:
                yield from pieces_of(stream)

        return pieces()

    def clear(self, subdirectory: str, *, keep: str = "") -> None:
        """Delete a subdirectory, except for ``keep``, a subdirectory of it. If it does not exist, do nothing."""
        path = self._path / subdirectory
        try:
            for child in path.iterdir() if keep else [path]:
                if not keep or child != self._path / keep:
                    shutil.rmtree(child)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ExportError(f"cannot remove {error.filename or path}: {error.strerror}") from error

    def forget(self, name: str) -> None:
        """Delete the spool of an unfinished export to this name. A local directory needs no spool."""


def make_directory(path: Path, variable: str) -> None:
    """Create a directory and its parents, for their owner only. ``variable`` is named in the error."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot make {path}: {error.strerror}; see {variable}") from error
