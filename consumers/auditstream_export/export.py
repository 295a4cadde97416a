"""Runs an export: reads a snapshot, writes files and manifest, signs and publishes them."""

import getpass
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from auditstream_export.files import Digest, ExportWriter, FileSummary, open_writer, range_size, split_target
from auditstream_export.formats import OutputFormat, numbered_name, stored_rows
from auditstream_export.query.ledger_extract import LedgerExtract
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.snapshot import ROWS, Slice, Snapshot, connect, wrong_count
from auditstream_export.query.statements import header
from auditstream_export.query.watermark import Watermark
from auditstream_export.settings import ExportSettings
from auditstream_export.verify import SigningKey, load_signing_key, manifest_bytes, manifest_name, signature_name
from auditstream_schemas.errors import ExportError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_storage import retention

Progress = Callable[[int, int], object]
"""Called with the rows written so far and the total, after every chunk of about a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A finished export.

    Attributes:
        files: The files, in order; one entry for a stream, too.
        manifest: Path or address of the manifest; None for a stream.
        key_id: Id of the key that signed the manifest; None if it is not signed.
        rows: Number of events in all files.
        watermark: The offsets up to which events are included.
        balanced: Whether the ledger balances up to the watermark.
        retention_notice: A notice if the range begins before the retention, else None.
    """

    files: tuple[FileSummary, ...]
    manifest: str | None
    key_id: str | None
    rows: int
    watermark: Watermark
    balanced: bool
    retention_notice: str | None


def export_events(
    settings: ClickHouseSettings,
    request: ExportRequest,
    target: str | Path,
    *,
    output_format: OutputFormat | None = None,
    watermark: Watermark | None = None,
    repeats: Mapping[str, Any] | None = None,
    requester: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    slice_rows: int = ROWS,
    progress: Progress = lambda _rows, _total: None,
) -> ExportResult:
    """Export the events of a request to one file or several, with a manifest.

    Blocks until everything is on the disk or in the bucket. Memory does not grow with the number of events. After an
    exception, also one of ``progress`` or of a signal, there is no file with a final name. If at least one slice was
    complete, the part files stay and the export can be resumed.

    Args:
        settings: Connection to ClickHouse; `ExportSettings` also names the signing key.
        request: Range and filter.
        target: A path, or ``s3://bucket/key``. Compressed if it ends in ``.gz`` or ``.zst``. With
            ``output_format.split_rows`` files are numbered: ``january-00001.csv``.
        output_format: Format and profile; csv, raw, in one file by default.
        watermark: The offsets up to which events are included; the end of the ledger by default.
        repeats: The manifest of an earlier export; if the content is not the same, the export fails.
        requester: Name for the manifest; the user of this process by default.
        overwrite: Replace existing files.
        resume: Resume an unfinished export of the same request to the same target.
        slice_rows: Events per query; the export can be resumed after each slice.
        progress: Called after every chunk.

    Raises:
        ExportError: A file exists or cannot be written, ClickHouse failed or sent too few events, or the content
            differs from ``repeats``.
        SettingsError: The signing key cannot be read.
    """
    now = datetime.now(UTC)
    if not isinstance(settings, ExportSettings):
        settings = ExportSettings(**{field.name: getattr(settings, field.name) for field in fields(ClickHouseSettings)})
    key = load_signing_key(settings.export_key_file) if settings.export_key_file else None
    directory, name = split_target(target, settings)
    output_format = output_format or OutputFormat()
    output_format.check_name(name)
    first_name = numbered_name(name, 1) if output_format.split_rows else name
    for file_name in () if resume or overwrite else (first_name, manifest_name(name)):
        if directory.exists(file_name):
            raise ExportError(f"{directory.display_name(file_name)} exists: choose another name, or use --force")
    try:
        with (
            open_writer(directory.local_path(name), overwrite=overwrite, resume=resume) as writer,
            closing(connect(settings)) as client,
        ):
            description = {**request.to_dict(), **asdict(output_format), "database": settings.clickhouse_database}
            watermark, slices = _plan_of(writer, description, watermark)
            snapshot = Snapshot(
                client,
                request,
                database=settings.clickhouse_database,
                output_format=output_format,
                watermark=watermark,
                slices=slices,
                slice_rows=slice_rows,
            )
            plan = {
                **description,
                "watermark": snapshot.ledger.watermark.to_dict(),
                "slices": [asdict(part) for part in snapshot.slices],
            }
            writer.begin(plan, output_format, range_size=range_size(snapshot.rows))
            with closing(snapshot):
                write = _write_parquet if output_format.format == "parquet" else _write_rows
                files = write(writer, snapshot, progress)
            if repeats is not None:
                _compare(files, repeats, request, writer, now)
            manifest = manifest_bytes(
                request=request,
                output_format=output_format,
                ledger=snapshot.ledger,
                files=files,
                name=name,
                rows_per_checksum=range_size(snapshot.rows),
                requester=requester or _this_user(),
                now=now,
                key=key,
            )
            if key is not None:
                writer.add(signature_name(name), key.sign(manifest))
            writer.add(manifest_name(name), manifest)
            writer.publish(directory.publish)
            directory.finish(name)
    except FileExistsError as error:
        raise ExportError(f"{error.filename} exists, but belongs to no known export: remove it") from error
    except OSError as error:
        raise ExportError(f"cannot write {error.filename or target}: {error.strerror}; nothing was exported") from error
    return _result(files, snapshot.ledger, request, now, manifest=directory.display_name(manifest_name(name)), key=key)


def write_events(
    settings: ClickHouseSettings,
    request: ExportRequest,
    stream: IO[bytes],
    *,
    output_format: OutputFormat | None = None,
    watermark: Watermark | None = None,
    progress: Progress = lambda _rows, _total: None,
) -> ExportResult:
    """Write the events of a request to a stream, such as a pipe, without a manifest.

    Blocks until everything is written. Memory does not grow with the number of events.

    Raises:
        ExportError: ClickHouse failed or sent too few events; discard the content of the stream.
        OSError: The stream cannot be written.
    """
    now = datetime.now(UTC)
    output_format = output_format or OutputFormat()
    if output_format.format == "parquet":
        raise ExportError("parquet cannot be written to a stream: its reader could not detect missing rows")
    digest, rows = Digest(), 0

    def write(data: bytes) -> None:
        digest.add(data)
        stream.write(data)

    with closing(connect(settings)) as client:
        snapshot = Snapshot(
            client, request, database=settings.clickhouse_database, output_format=output_format, watermark=watermark
        )
        write(header(output_format))
        with closing(snapshot):
            for part in snapshot.slices:
                for chunk in snapshot.records(part):
                    write(chunk.data)
                    rows += len(chunk.starts)
                    progress(rows, snapshot.rows)
    stream.flush()
    size, sha256 = digest.bytes, digest.sha256
    file = FileSummary(name="-", rows=rows, bytes=size, sha256=sha256, content_bytes=size, content_sha256=sha256)
    return _result([file], snapshot.ledger, request, now)


def _plan_of(
    writer: ExportWriter, description: Mapping[str, object], watermark: Watermark | None
) -> tuple[Watermark | None, Sequence[Slice] | None]:
    """Return watermark and slices; if an export is resumed, those of its journal."""
    if writer.plan is None:
        return watermark, None
    differing = [name for name, value in description.items() if writer.plan.get(name) != value]
    resumed = Watermark.from_json(writer.plan)
    if watermark is not None and watermark != resumed:
        differing.append("watermark")
    if differing:
        raise ExportError(
            f"the unfinished export to {writer.path} differs in {', '.join(differing)}: resume it with its first "
            "options, or begin anew (--force)"
        )
    return resumed, [Slice(**part) for part in writer.plan["slices"]]


def _write_rows(writer: ExportWriter, snapshot: Snapshot, progress: Progress) -> list[FileSummary]:
    progress(writer.rows, snapshot.rows)
    for part in snapshot.slices[writer.slices_done :]:
        for chunk in snapshot.records(part):
            writer.write(chunk)
            progress(writer.rows, snapshot.rows)
        writer.checkpoint()
    files = writer.finish()
    if sum(file.rows for file in files) != snapshot.rows:
        raise ExportError(f"the files do not have the {snapshot.rows:,} counted rows: begin anew (--force)")
    return files


def _write_parquet(writer: ExportWriter, snapshot: Snapshot, progress: Progress) -> list[FileSummary]:
    """Write the only slice. The rows are counted from the file's footer, because the file has no separate records."""
    (part,) = snapshot.slices
    progress(0, snapshot.rows)
    for piece in snapshot.pieces(part):
        writer.write_bytes(piece)
        progress(0, snapshot.rows)
    files = writer.finish(snapshot.rows)
    rows = stored_rows(writer.part_of(files[0]))
    if rows != snapshot.rows:
        raise wrong_count(part, rows)
    progress(rows, snapshot.rows)
    return files


def _compare(
    files: Sequence[FileSummary],
    manifest: Mapping[str, Any],
    request: ExportRequest,
    writer: ExportWriter,
    now: datetime,
) -> None:
    """Raise ExportError if the content differs from that of an earlier export with the same watermark."""
    earlier = [(entry["rows"], entry["content_sha256"]) for entry in manifest["files"]]
    if [(file.rows, file.content_sha256) for file in files] == earlier:
        return
    writer.is_rejected = True
    rows = sum(file.rows for file in files)
    reason = retention.notice(request.start, now=now) or (
        "the range is within the retention: find the cause with `auditstream verify`"
    )
    raise ExportError(
        f"the content is not that of the earlier export: it had {manifest['rows']:,} rows, now there are {rows:,}; "
        f"{reason}; nothing was exported. Use --from and --to to export the present content without the comparison"
    )


def _result(
    files: Sequence[FileSummary],
    ledger: LedgerExtract,
    request: ExportRequest,
    now: datetime,
    *,
    manifest: str | None = None,
    key: SigningKey | None = None,
) -> ExportResult:
    return ExportResult(
        files=tuple(files),
        manifest=manifest,
        key_id=key.public.key_id if key else None,
        rows=sum(file.rows for file in files),
        watermark=ledger.watermark,
        balanced=ledger.is_balanced,
        retention_notice=retention.notice(request.start, now=now),
    )


def _this_user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
