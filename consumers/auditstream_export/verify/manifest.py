"""Writes and reads the manifest of an export, a JSON document. The signature covers its exact bytes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from auditstream_export.files import FileSummary
from auditstream_export.formats import OutputFormat, compression_of
from auditstream_export.query.ledger_extract import LedgerExtract
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.statements import COLUMNS
from auditstream_export.verify.signing import SigningKey, read_bytes
from auditstream_schemas.catalog import catalog_sha256
from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_schemas.errors import ExportError
from auditstream_schemas.timestamp import format_timestamp, from_datetime
from auditstream_storage import retention

VERSION = 1
"""Version of the manifest's structure."""


def manifest_name(name: str) -> str:
    """The name of the manifest of an export to a file of this name."""
    return f"{name}.manifest.json"


def signature_name(name: str) -> str:
    """The name of the signature of that manifest."""
    return f"{manifest_name(name)}.sig"


def manifest_bytes(
    *,
    request: ExportRequest,
    output_format: OutputFormat,
    ledger: LedgerExtract,
    files: Sequence[FileSummary],
    name: str,
    rows_per_checksum: int,
    requester: str,
    now: datetime,
    key: SigningKey | None,
) -> bytes:
    """Write the manifest of an export to files of this name. ``ledger`` ends at the watermark; ``key`` signs later."""
    is_parquet = output_format.format == "parquet"
    manifest = {
        "manifest_version": VERSION,
        "generated_by": f"auditstream {version('auditstream')}",
        "generated_at": format_timestamp(from_datetime(now)),
        "requester": requester,
        **request.to_dict(),
        "watermark": ledger.watermark.to_dict(),
        "rows": sum(file.rows for file in files),
        "truncated": False,
        **asdict(output_format),
        "compression": compression_of(name),
        "columns": list(COLUMNS),
        "schema_sha256": hashlib.sha256(SCHEMA_JSON.encode()).hexdigest(),
        "catalog_sha256": catalog_sha256(),
        "retention_months": retention.RETENTION_MONTHS,
        "retention_notice": retention.notice(request.start, now=now),
        "signed_by": key.public.to_dict() if key else None,
        "ledger": ledger.to_dict(),
        "rows_per_checksum": None if is_parquet else rows_per_checksum,
        "files": [{**asdict(file), "checksums": None if is_parquet else " ".join(file.checksums)} for file in files],
    }
    return (json.dumps(manifest, ensure_ascii=False, indent=1) + "\n").encode()


def read_manifest(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return content and bytes of a manifest. Raises ExportError if it cannot be read, or has another version."""
    text = read_bytes(path)
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise ExportError(f"{path} is not a manifest: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("manifest_version") != VERSION:
        raise ExportError(f"{path} is not a manifest of version {VERSION}, the version that this auditstream reads")
    return manifest, text
