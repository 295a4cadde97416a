"""A bucket of S3-compatible storage as the place that exports go to.

Where it is and who may write there tell the variables that all of Amazon's tools know: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``, and ``AWS_ALLOW_HTTP=true`` for one without TLS.
"""

from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from auditstream_export.prefetch import Prefetch
from auditstream_schemas.errors import ExportError

_PART = 8 * 1024 * 1024
"""Bytes of a part, and what uploading keeps in memory three times. S3 takes 10,000 parts: files of up to 80 GB."""
_PARTS_AT_ONCE = 3
_PATIENCE = timedelta(seconds=60)


class Bucket:
    """A bucket. obstore hears no signal until it is done, so it is waited for on another thread.

    Attributes:
        draft: Where the file lies in the spool folder.
    """

    def __init__(self, bucket: str, key: str, spool: Path) -> None:
        """Take note of it; nothing is asked yet.

        Args:
            bucket: Its name.
            key: The object that is to be written.
            spool: Folder of this export's own.

        Raises:
            ExportError: A variable is malformed.
        """
        folder, _, name = key.rpartition("/")
        self.draft = spool / name
        self._bucket = bucket
        self._folder = f"{folder}/" if folder else ""
        self._store = open_store(bucket)

    @property
    def name(self) -> str:
        """The object's name, without its folders."""
        return self.draft.name

    def display_name(self, name: str) -> str:
        """The address of an object beside it."""
        return f"s3://{self._bucket}/{self._folder}{name}"

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            Prefetch(lambda: obstore.head(self._store, self._folder + name)).answer()
        except FileNotFoundError:
            return False
        except BaseError as error:
            raise ExportError(
                f"cannot look for {self.display_name(name)}: {_told(error)}; nothing was exported"
            ) from error
        return True

    def place(self, part: Path, name: str) -> None:
        """Upload a file, in parts if it is large; the object is there when all of them are, and not before.

        Raises:
            ExportError: The storage refused, or did not answer.
        """
        try:
            Prefetch(
                lambda: obstore.put(
                    self._store, self._folder + name, part, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE
                )
            ).answer()
        except (BaseError, OSError) as error:
            raise ExportError(
                f"cannot write {self.display_name(name)}: {_told(error)}; what was exported is kept in {part.parent}: --resume "
                "uploads it"
            ) from error

    def close(self) -> None:
        """Empty the spool folder."""
        for path in self.draft.parent.iterdir():
            path.unlink()
        self.draft.parent.rmdir()


def open_store(bucket: str) -> S3Store:
    """A bucket to read and write; nothing is asked yet.

    Raises:
        ExportError: A variable is malformed.
    """
    try:
        return S3Store(bucket, retry_config={"max_retries": 5, "retry_timeout": _PATIENCE})
    except BaseError as error:
        raise ExportError(f"cannot use s3://{bucket}: {_told(error)}; check the AWS_... variables") from error


def _told(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
