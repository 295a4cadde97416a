"""The files of jobs in a bucket of S3-compatible storage."""

import shutil
from collections.abc import Generator
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from auditstream_export.files.bucket import open_store
from auditstream_export.files.destination import destination
from auditstream_export.settings import JobSettings
from auditstream_schemas.errors import ExportError

_PIECE = 1024 * 1024


class BucketFiles:
    """Files below ``s3://bucket/folder``."""

    def __init__(self, target: str, settings: JobSettings) -> None:
        """Take note of it; nothing is asked yet.

        Raises:
            ExportError: The address, or a variable, is malformed.
        """
        self._target = target
        self._settings = settings
        bucket, _, folder = target.removeprefix("s3://").partition("/")
        if not bucket:
            raise ExportError(f"AUDITSTREAM_EXPORT_TARGET {target} names no bucket: expected s3://BUCKET/FOLDER")
        self._folder = f"{folder}/" if folder else ""
        self._store: S3Store = open_store(bucket)

    def target(self, place: str, name: str) -> str:
        """The file's address."""
        return f"{self._target}/{place}/{name}"

    def pieces(self, place: str, name: str) -> Generator[bytes]:
        """Download the file."""
        key = f"{self._folder}{place}/{name}"
        try:
            found = obstore.get(self._store, key)
        except (BaseError, OSError) as error:
            raise _failed("read", f"{self._target}/{place}/{name}", error) from error

        def read() -> Generator[bytes]:
            try:
                for piece in found.stream(min_chunk_size=_PIECE):
                    yield bytes(piece)
            except (BaseError, OSError) as error:
                raise _failed("read", f"{self._target}/{place}/{name}", error) from error

        return read()

    def clear(self, id: UUID, *, but: str = "") -> None:
        """Delete the objects."""
        self._delete(f"{self._folder}{id}/", but=f"{self._folder}{but}/" if but else None)

    def clear_place(self, place: str) -> None:
        """Delete the objects."""
        self._delete(f"{self._folder}{place}/")

    def forget(self, target: str) -> None:
        """Remove what lies spooled for a target on this machine."""
        shutil.rmtree(destination(target, self._settings).draft.parent, ignore_errors=True)

    def _delete(self, prefix: str, *, but: str | None = None) -> None:
        try:
            keys = [str(each["path"]) for batch in obstore.list(self._store, prefix) for each in batch]
            gone = [key for key in keys if but is None or not key.startswith(but)]
            if gone:
                obstore.delete(self._store, gone)
        except (BaseError, OSError) as error:
            raise _failed("remove", f"{self._target}/{prefix.removeprefix(self._folder)}", error) from error


def _failed(what: str, name: str, error: Exception) -> ExportError:
    return ExportError(f"cannot {what} {name}: {str(error).partition(chr(10))[0][:300]}")
