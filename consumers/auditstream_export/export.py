"""An export from start to end: snapshot, stream, file, manifest."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO

from auditstream_export import retention
from auditstream_export.export_file import Digest, ExportFile, manifest_path, writing
from auditstream_export.request import ExportRequest
from auditstream_export.snapshot import Snapshot, connect
from auditstream_export.statements import COLUMNS
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import format_timestamp, from_datetime

PROFILE = "raw"
"""Cells hold exactly what the events hold; nothing is escaped for spreadsheet programs."""

Progress = Callable[[int, int], object]
"""Called with the rows so far and the rows in all, after every piece of about a megabyte."""


def _unseen(rows: int, total: int) -> None:
    del rows, total


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A finished export.

    Attributes:
        path: The file; None if it was a stream.
        manifest: The manifest beside the file; None if it was a stream.
        rows: Records in the file, its header not counted.
        sha256: SHA-256 of the file, hexadecimal.
        bytes: Length of the file.
        csv_sha256: SHA-256 of the CSV, which is the file's unless that is compressed.
        csv_bytes: Length of the CSV.
        ingested_up_to: Latest ``ingested_at`` of the exported events, ISO-8601; None if there are none.
        retention_notice: What to know if the range begins before the retention does, else None.
    """

    path: Path | None
    manifest: Path | None
    rows: int
    sha256: str
    bytes: int
    csv_sha256: str
    csv_bytes: int
    ingested_up_to: str | None
    retention_notice: str | None


def export_events(
    settings: ClickHouseSettings,
    request: ExportRequest,
    destination: Path,
    *,
    overwrite: bool = False,
    progress: Progress = _unseen,
) -> ExportResult:
    """Export the events of a request to a CSV file, compressed if its name ends in ``.gz`` or ``.zst``.

    Blocks until the file and its manifest are on disk. Memory does not grow with the number of events.
    Whatever stops it half-way, an exception of ``progress`` or a signal included, leaves nothing under the
    file's name.

    Args:
        settings: Where the events are.
        request: Which events.
        destination: The file; ``FILE.part`` until it is whole. Its folder must exist.
        overwrite: Replace a file of that name.
        progress: Told how far it is.

    Raises:
        ExportError: The file may not or cannot be written, or ClickHouse failed or sent less than it has.
    """
    now = datetime.now(UTC)
    with writing(destination, overwrite=overwrite) as file:
        snapshot = _stream(settings, request, file.write, progress)
        file.finish()
        result = ExportResult(
            path=destination,
            manifest=manifest_path(destination),
            rows=snapshot.rows,
            sha256=file.stored.sha256,
            bytes=file.stored.bytes,
            csv_sha256=file.csv.sha256,
            csv_bytes=file.csv.bytes,
            ingested_up_to=_milliseconds(snapshot.ingested_up_to),
            retention_notice=retention.notice(request.start, now=now),
        )
        file.publish(_manifest(result, request, file, now))
    return result


def write_csv(
    settings: ClickHouseSettings, request: ExportRequest, stream: IO[bytes], *, progress: Progress = _unseen
) -> ExportResult:
    """Write the events of a request as CSV to a stream, such as a pipe. There is no manifest.

    Blocks until all is written. Memory does not grow with the number of events.

    Raises:
        ExportError: ClickHouse failed or sent less than it has. What the stream got so far is worthless.
        OSError: The stream refused.
    """
    now = datetime.now(UTC)
    digest = Digest()

    def write(piece: bytes) -> None:
        digest.add(piece)
        stream.write(piece)

    snapshot = _stream(settings, request, write, progress)
    stream.flush()
    return ExportResult(
        path=None,
        manifest=None,
        rows=snapshot.rows,
        sha256=digest.sha256,
        bytes=digest.bytes,
        csv_sha256=digest.sha256,
        csv_bytes=digest.bytes,
        ingested_up_to=_milliseconds(snapshot.ingested_up_to),
        retention_notice=retention.notice(request.start, now=now),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Streamed:
    rows: int
    ingested_up_to: int | None


def _stream(
    settings: ClickHouseSettings, request: ExportRequest, write: Callable[[bytes], object], progress: Progress
) -> _Streamed:
    with closing(connect(settings)) as client:
        snapshot = Snapshot(client, request, database=settings.clickhouse_database)
        rows = 0
        with closing(snapshot.pieces()) as pieces:
            for piece, begun in pieces:
                write(piece)
                rows += begun
                progress(rows, snapshot.rows)
    return _Streamed(rows=rows, ingested_up_to=snapshot.ingested_up_to)


def _manifest(result: ExportResult, request: ExportRequest, file: ExportFile, now: datetime) -> dict[str, object]:
    return {
        "file": file.name,
        "sha256": result.sha256,
        "bytes": result.bytes,
        "compression": file.compression,
        "csv_sha256": result.csv_sha256,
        "csv_bytes": result.csv_bytes,
        "rows": result.rows,
        "truncated": False,
        "format": "csv",
        "profile": PROFILE,
        "columns": list(COLUMNS),
        "from": format_timestamp(request.start),
        "to": format_timestamp(request.end),
        "filter": request.filter.described(),
        "ingested_up_to": result.ingested_up_to,
        "retention_months": retention.MONTHS,
        "retention_notice": result.retention_notice,
        "generated_at": format_timestamp(from_datetime(now)),
        "generated_by": f"auditstream {version('auditstream')}",
    }


def _milliseconds(since_epoch: int | None) -> str | None:
    return None if since_epoch is None else format_timestamp(since_epoch * 1_000_000)
