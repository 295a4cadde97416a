"""A directory of export files on the local disk."""

import os
import shutil
from collections.abc import Generator
from pathlib import Path

from auditstream_export.files.compression import pieces_of
from auditstream_schemas.errors import ExportError


class LocalDirectory:
    """A directory on the local disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def display_name(self, name: str) -> str:
        """The path of the file."""
        return str(self._path / name)

    def local_path(self, name: str) -> Path:
        """The path of the file; its subdirectories are for their owner only."""
        path = self._path / name
        if "/" in name:
            make_directory(path.parent, "AUDITSTREAM_EXPORT_TARGET")
        return path

    def exists(self, name: str) -> bool:
        """Whether the file exists."""
        return (self._path / name).exists()

    def publish(self, part: Path, name: str) -> None:
        """Rename the file."""
        part.replace(self._path / name)

    def finish(self, name: str) -> None:
        """Sync the names to the disk."""
        directory = os.open((self._path / name).parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def read(self, name: str) -> Generator[bytes]:
        """Read the file."""
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
        """Delete the directory; one that another worker deleted meanwhile is no error."""
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
        """Do nothing: part files lie in this directory."""


def make_directory(path: Path, variable: str) -> None:
    """Create a directory and its parents, for their owner only.

    Raises:
        ExportError: It cannot be created; the message names the variable that its path comes from.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot make {path}: {error.strerror}; see {variable}") from error
