"""The manifest of an export: all that is known of it, as JSON, in the very bytes that are signed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from auditstream_export.files.part_file import FileSummary
from auditstream_export.formats.output_format import OutputFormat, compression_of
from auditstream_export.query.ledger_extract import LedgerExtract
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.statements import COLUMNS
from auditstream_export.verify.signing import SigningKey
from auditstream_schemas.catalog import catalog_sha256
from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_schemas.errors import ExportError
from auditstream_schemas.timestamp import format_timestamp, from_datetime
from auditstream_storage import retention

VERSION = 1
"""Of the manifest's own shape."""


def manifest_name(name: str) -> str:
    """The name of the manifest of an export to a file of this name."""
    return f"{name}.manifest.json"


def signature_name(name: str) -> str:
    """The name of the signature of that manifest."""
    return f"{manifest_name(name)}.sig"


def manifest_bytes(
    *,
    request: ExportRequest,
    shape: OutputFormat,
    books: LedgerExtract,
    files: Sequence[FileSummary],
    name: str,
    rows_per_checksum: int,
    requester: str,
    now: datetime,
    key: SigningKey | None,
) -> bytes:
    """Write the manifest of an export.

    Args:
        request: What was asked for.
        shape: What the files look like.
        books: The ledger up to the watermark.
        files: Those of the export, in order.
        name: What the export was to be named.
        rows_per_checksum: Rows of a run that has a checksum.
        requester: Who asked.
        now: When.
        key: What it will be signed with.
    """
    found = {
        "manifest_version": VERSION,
        "generated_by": f"auditstream {version('auditstream')}",
        "generated_at": format_timestamp(from_datetime(now)),
        "requester": requester,
        **request.to_dict(),
        "watermark": books.watermark.to_dict(),
        "rows": sum(each.rows for each in files),
        "truncated": False,
        "format": shape.format,
        "profile": shape.profile,
        "compression": compression_of(name),
        "split_rows": shape.split_rows,
        "columns": list(COLUMNS),
        "schema_sha256": hashlib.sha256(SCHEMA_JSON.encode()).hexdigest(),
        "catalog_sha256": catalog_sha256(),
        "retention_months": retention.RETENTION_MONTHS,
        "retention_notice": retention.notice(request.start, now=now),
        "signed_by": key.public.to_dict() if key else None,
        "books": books.to_dict(),
        "rows_per_checksum": None if shape.format == "parquet" else rows_per_checksum,
        "files": [
            {**asdict(each), "checksums": None if shape.format == "parquet" else " ".join(each.checksums)}
            for each in files
        ],
    }
    return (json.dumps(found, ensure_ascii=False, indent=1) + "\n").encode()


def read_manifest(path: Path) -> tuple[dict[str, Any], bytes]:
    """Read a manifest; with it, its bytes.

    Raises:
        ExportError: There is none, or it is none.
    """
    try:
        text = path.read_bytes()
        found = json.loads(text)
    except OSError as error:
        raise ExportError(f"cannot read the manifest {path}: {error.strerror}") from error
    except ValueError as error:
        raise ExportError(f"{path} is no manifest: {error}") from error
    if not isinstance(found, dict) or found.get("manifest_version") != VERSION:
        raise ExportError(f"{path} is no manifest of version {VERSION}, which this auditstream knows")
    return found, text


def shape_of(manifest: Mapping[str, Any]) -> OutputFormat:
    """What the files of a manifest look like.

    Raises:
        ExportError: It does not tell.
    """
    try:
        return OutputFormat(format=manifest["format"], profile=manifest["profile"], split_rows=manifest["split_rows"])
    except (KeyError, TypeError) as error:
        raise ExportError(f"the manifest does not tell what the files look like: {error}") from error
