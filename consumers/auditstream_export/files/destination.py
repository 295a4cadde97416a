"""Where an export goes: a folder, or a bucket of S3-compatible storage.

Files are written to the local disk either way. A folder's lie in it under another name; a bucket's in a spool
folder, and are uploaded when all of them are whole: so an export to a bucket can be resumed as well, and a bucket
that is away costs the upload alone.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

from auditstream_export.settings import ExportSettings
from auditstream_schemas.errors import ExportError
from auditstream_schemas.extras import install_hint

_S3 = "s3://"


class Destination(Protocol):
    """Where an export goes."""

    @property
    def draft(self) -> Path:
        """Where its file would lie on the local disk; its folder exists."""

    @property
    def name(self) -> str:
        """Its name, without folders."""

    def display_name(self, name: str) -> str:
        """How a file of that name is told to people: with its folder or bucket."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def place(self, part: Path, name: str) -> None:
        """Give a local file that name there; it is whole, or not there. Blocks."""

    def close(self) -> None:
        """Make sure that what was placed stays."""


class Folder:
    """A folder of the local disk.

    Attributes:
        draft: The file.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise ExportError(f"{path} is a directory: name a file in it")
        self.draft = path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.draft.name

    def display_name(self, name: str) -> str:
        """The path of a file beside it."""
        return str(self.draft.with_name(name))

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.draft.with_name(name).exists()

    def place(self, part: Path, name: str) -> None:
        """Rename it."""
        part.replace(self.draft.with_name(name))

    def close(self) -> None:
        """Bring the names to the disk."""
        directory = os.open(self.draft.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def destination(target: str | Path, settings: ExportSettings) -> Destination:
    """Where an export to this path or ``s3://bucket/key`` goes.

    Raises:
        ExportError: It is no place for a file, or the extra for S3 is missing.
    """
    text = str(target)
    if not text.startswith(_S3):
        return Folder(Path(target))
    try:
        from auditstream_export.files.bucket import Bucket  # noqa: PLC0415 (the extra may be missing)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"an export to s3:// needs {error.name}, which this install lacks: {install_hint('export')}"
        ) from error
    name, _, key = text.removeprefix(_S3).partition("/")
    if not name or not key or key.endswith("/"):
        raise ExportError(f"{text} names no file in a bucket: expected s3://BUCKET/FOLDER/FILE")
    spool = settings.export_spool_dir or Path(tempfile.gettempdir()) / f"auditstream-export-{os.getuid()}"
    # The same target has the same folder, so that an export to it can be resumed.
    folder = spool / hashlib.sha256(text.encode()).hexdigest()[:16]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot make AUDITSTREAM_EXPORT_SPOOL_DIR {folder}: {error.strerror}") from error
    return Bucket(name, key, folder)
