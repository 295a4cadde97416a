"""Where the files of jobs lie: ``TARGET/JOB/TAKING/FILE``, in a folder or a bucket.

Every taking of a job has a folder of its own, unless it goes on with what the one before left. So two workers of
which each thinks that the job is its own never write the same file.
"""

import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Protocol
from uuid import UUID

from auditstream_export.files.destination import destination
from auditstream_export.files.draft import is_resumable
from auditstream_export.settings import JobSettings
from auditstream_schemas.errors import ExportError

_PIECE = 1024 * 1024
_S3 = "s3://"


class JobFiles(Protocol):
    """The files of all jobs. Every method blocks on the disk or the network."""

    def target(self, place: str, name: str) -> str:
        """What an export to that place is to be told; the folder is there."""

    def pieces(self, place: str, name: str) -> Generator[bytes]:
        """Yield a file, in pieces of about a megabyte.

        Raises:
            ExportError: It is not there, or cannot be read; before the first piece if it is not there at all.
        """

    def clear(self, id: UUID, *, but: str = "") -> None:
        """Remove what there is of a job, except for one place.

        Raises:
            ExportError: Something cannot be removed.
        """

    def clear_place(self, place: str) -> None:
        """Remove one place of a job.

        Raises:
            ExportError: Something cannot be removed.
        """

    def forget(self, target: str) -> None:
        """Remove what this machine has of an unfinished export to that target, where it lies elsewhere."""


class FolderFiles:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def target(self, place: str, name: str) -> str:
        """The file's path."""
        folder = self._folder / place
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ExportError(f"cannot make {folder}: {error.strerror}; see AUDITSTREAM_EXPORT_TARGET") from error
        return str(folder / name)

    def pieces(self, place: str, name: str) -> Generator[bytes]:
        """Read the file."""
        path = self._folder / place / name
        try:
            stream = path.open("rb")
        except OSError as error:
            raise ExportError(f"cannot read {path}: {error.strerror}") from error

        def read() -> Generator[bytes]:
            with stream:
                while piece := stream.read(_PIECE):
                    yield piece

        return read()

    def clear(self, id: UUID, *, but: str = "") -> None:
        """Remove the folders."""
        folder = self._folder / str(id)
        kept = self._folder / but if but else None
        try:
            for found in list(folder.iterdir()):
                if found != kept:
                    shutil.rmtree(found)
            if kept is None:
                folder.rmdir()
        except FileNotFoundError:
            # Another worker clears, too.
            return
        except OSError as error:
            raise ExportError(f"cannot remove {error.filename or folder}: {error.strerror}") from error

    def clear_place(self, place: str) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder / place, ignore_errors=True)

    def forget(self, target: str) -> None:
        """Nothing: it lies in the folder itself."""


def job_files(settings: JobSettings) -> JobFiles:
    """The files below ``export_target``.

    Raises:
        ExportError: The extra for S3 is missing, or the address is malformed.
    """
    target = settings.export_target
    if not target.startswith(_S3):
        return FolderFiles(Path(target).absolute())
    from auditstream_export.files.bucket_files import BucketFiles  # noqa: PLC0415 (the extra may be missing)

    return BucketFiles(target.rstrip("/"), settings)


def can_go_on(target: str, settings: JobSettings) -> bool:
    """Whether an export to this target was left unfinished, on this machine's disk, and nobody is writing it."""
    return is_resumable(destination(target, settings).draft)
