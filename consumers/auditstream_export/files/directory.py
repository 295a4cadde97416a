"""Directories that exports are written to: on the local disk, or below a prefix of a bucket.

Part files are always written to the local disk. In a local directory they lie beside the final files and are
renamed. For a bucket they lie in a spool directory and are uploaded when all of them are complete. So an export to a
bucket can be resumed too, and only the upload needs the bucket.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from auditstream_export.files.local_directory import LocalDirectory
from auditstream_export.settings import ExportSettings
from auditstream_schemas.errors import ExportError
from auditstream_schemas.extras import install_hint

if TYPE_CHECKING:
    from auditstream_export.files.bucket import BucketDirectory

Directory: TypeAlias = "LocalDirectory | BucketDirectory"

_S3 = "s3://"


def open_directory(address: str | Path, settings: ExportSettings) -> Directory:
    """Return the directory of a path or ``s3://bucket/prefix``. Does not connect. Raises ExportError."""
    text = str(address)
    if not text.startswith(_S3):
        return LocalDirectory(Path(address))
    try:
        from auditstream_export.files.bucket import BucketDirectory  # noqa: PLC0415 (the extra may be missing)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"an export to s3:// needs {error.name}, which this install lacks: {install_hint('export')}"
        ) from error
    bucket, _, prefix = text.removeprefix(_S3).rstrip("/").partition("/")
    if not bucket:
        raise ExportError(f"{text} names no bucket: expected s3://BUCKET/FOLDER")
    spool = settings.export_spool_dir or Path(tempfile.gettempdir()) / f"auditstream-export-{os.getuid()}"
    return BucketDirectory(bucket, prefix, spool)


def split_target(target: str | Path, settings: ExportSettings) -> tuple[Directory, str]:
    """Return directory and name of a file from its path or ``s3://bucket/key``. Raises ExportError."""
    text = str(target)
    if not text.startswith(_S3):
        path = Path(target)
        if path.is_dir():
            raise ExportError(f"{path} is a directory: name a file in it")
        return LocalDirectory(path.parent), path.name
    address, _, name = text.removeprefix(_S3).rpartition("/")
    if not address.partition("/")[0] or not name:
        raise ExportError(f"{text} names no file in a bucket: expected s3://BUCKET/FOLDER/FILE")
    return open_directory(f"{_S3}{address}", settings), name
