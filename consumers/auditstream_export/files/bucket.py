"""A directory in a bucket of S3-compatible storage.

Location and credentials come from the standard AWS variables: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_REGION``, ``AWS_ENDPOINT_URL``, and ``AWS_ALLOW_HTTP=true`` for an endpoint without TLS.
"""

import hashlib
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from auditstream_export.files.compression import PIECE_BYTES
from auditstream_export.files.local_directory import make_directory
from auditstream_schemas.background import in_background
from auditstream_schemas.errors import ExportError

_PART_BYTES = 8 * 1024 * 1024
"""Bytes of an uploaded part; three are in memory at once. S3 accepts 10,000 parts: files of up to 80 GB."""
_PARTS_AT_ONCE = 3
_RETRY_TIMEOUT = timedelta(seconds=60)


class BucketDirectory:
    """Objects below a prefix of a bucket, with the methods of `LocalDirectory`.

    Calls of an export run in a thread: signals do not interrupt obstore, but they interrupt the wait for the thread.
    """

    def __init__(self, bucket: str, prefix: str, spool: Path) -> None:
        """Read the AWS variables; does not connect. Part files lie below the local directory ``spool``."""
        self._prefix = f"{prefix}/" if prefix else ""
        self._address = f"s3://{bucket}/{self._prefix}"
        self._spool = spool
        try:
            self._store = S3Store(bucket, retry_config={"max_retries": 5, "retry_timeout": _RETRY_TIMEOUT})
        except BaseError as error:
            raise ExportError(f"cannot use s3://{bucket}: {_first_line(error)}; check the AWS_... variables") from error

    def display_name(self, name: str) -> str:
        """The address of the object."""
        return self._address + name

    def local_path(self, name: str) -> Path:
        """A path in the spool: always the same for one address, so that the export can be resumed."""
        directory = self._spool_of(name)
        make_directory(directory, "AUDITSTREAM_EXPORT_SPOOL_DIR")
        return directory / Path(name).name

    def exists(self, name: str) -> bool:
        """Whether the object exists."""
        with self._failing("look for", name, "; nothing was exported"):
            try:
                in_background(lambda: obstore.head(self._store, self._prefix + name), "export-bucket").result()
            except FileNotFoundError:
                return False
        return True

    def publish(self, part: Path, name: str) -> None:
        """Upload the file, a large one in parts; the object appears when all parts are uploaded."""
        put = partial(obstore.put, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
        with self._failing("write", name, f"; the export is kept in {part.parent}: --resume uploads it"):
            in_background(lambda: put(self._store, self._prefix + name, part), "export-upload").result()

    def finish(self, name: str) -> None:
        """Delete the spool of the export."""
        shutil.rmtree(self._spool_of(name))

    def read(self, name: str) -> Generator[bytes]:
        """Download the object."""
        with self._failing("read", name):
            response = obstore.get(self._store, self._prefix + name)

        def pieces() -> Generator[bytes]:
            with self._failing("read", name):
                for piece in response.stream(min_chunk_size=PIECE_BYTES):
                    yield bytes(piece)

        return pieces()

    def clear(self, subdirectory: str, *, keep: str = "") -> None:
        """Delete the objects."""
        with self._failing("remove", subdirectory):
            pages = obstore.list(self._store, f"{self._prefix}{subdirectory}/")
            keys = [str(item["path"]) for page in pages for item in page]
            keys = [key for key in keys if not keep or not key.startswith(f"{self._prefix}{keep}/")]
            if keys:
                obstore.delete(self._store, keys)

    def forget(self, name: str) -> None:
        """Delete the spool of the export."""
        shutil.rmtree(self._spool_of(name), ignore_errors=True)

    def _spool_of(self, name: str) -> Path:
        return self._spool / hashlib.sha256(self.display_name(name).encode()).hexdigest()[:16]

    @contextmanager
    def _failing(self, action: str, name: str, hint: str = "") -> Iterator[None]:
        """Within the block, raise errors of the storage as ExportError."""
        try:
            yield
        except (BaseError, OSError) as error:
            raise ExportError(f"cannot {action} {self.display_name(name)}: {_first_line(error)}{hint}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
