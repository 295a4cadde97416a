"""An export from start to end: snapshot, stream, files, manifest, signature."""

import getpass
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from auditstream_export.files.destination import Destination, destination
from auditstream_export.files.digests import Digest, range_size
from auditstream_export.files.draft import Draft, drafting
from auditstream_export.files.part_file import FileSummary
from auditstream_export.formats.output_format import OutputFormat, compression_of, numbered
from auditstream_export.formats.parquet import stored_rows
from auditstream_export.query.ledger_extract import LedgerExtract
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.slices import ROWS, Slice
from auditstream_export.query.snapshot import Snapshot, connect, wrong_count
from auditstream_export.query.statements import header
from auditstream_export.query.watermark import Watermark
from auditstream_export.settings import ExportSettings
from auditstream_export.verify.manifest import manifest_bytes, manifest_name, signature_name
from auditstream_export.verify.signing import SigningKey, load_signing_key
from auditstream_schemas.errors import ExportError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_storage import retention

Progress = Callable[[int, int], object]
"""Called with the rows so far and the rows in all, after every piece of about a megabyte."""

_UNEXPECTED = "the range is within the retention, so find out what changed, with `auditstream verify`"
_NOTHING = "nothing was exported. What is there now can be had without the comparison, by --from and --to"


def _unseen(rows: int, total: int) -> None:
    del rows, total


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A finished export.

    Attributes:
        files: What was written, in order; one for a stream, too.
        manifest: Where the manifest is; None if it was a stream.
        key_id: Which key signed the manifest; None if none did.
        rows: Events in all files.
        watermark: Up to which offsets.
        balanced: Whether the ledger's books balance up to there.
        retention_notice: What to know if the range begins before the retention does, else None.
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
    shape: OutputFormat | None = None,
    watermark: Watermark | None = None,
    repeats: Mapping[str, Any] | None = None,
    requester: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    slice_rows: int = ROWS,
    progress: Progress = _unseen,
) -> ExportResult:
    """Export the events of a request to a file, or to several, with a manifest.

    Blocks until all is on disk, or in the bucket. Memory does not grow with the number of events. Whatever stops it
    half-way, an exception of ``progress`` or a signal included, leaves nothing under a final name; what is done
    stays beside it to be resumed, if there is a slice of it.

    Args:
        settings: Where the events are; `ExportSettings` also tell what signs the manifest.
        request: Which events.
        target: A path, or ``s3://bucket/key``. Compressed if it ends in ``.gz`` or ``.zst``. With
            ``shape.split_rows`` files are numbered: ``january-00001.csv``.
        shape: Format and profile; csv, raw, in one file by default.
        watermark: Up to which offsets; the end of the ledger's books by default.
        repeats: The manifest of an earlier export whose content this one must have.
        requester: Who asked, for the manifest; the user of this process by default.
        overwrite: Replace files of these names.
        resume: Go on with what was left of an export of the same request to the same target.
        slice_rows: Events that ClickHouse is to sort at once, and after which the export can be resumed.
        progress: Told how far it is.

    Raises:
        ExportError: The files may not or cannot be written, ClickHouse failed or sent less than it has, or the
            content is not what ``repeats`` has.
        SettingsError: The key cannot be read.
    """
    now = datetime.now(UTC)
    exporting = _export_settings(settings)
    key = load_signing_key(exporting.export_key_file) if exporting.export_key_file else None
    place = destination(target, exporting)
    shape = shape or OutputFormat()
    if shape.format == "parquet" and compression_of(place.name):
        raise ExportError(f"{place.name}: parquet is compressed in itself, leave out the suffix")
    first = place.name if shape.split_rows is None else numbered(place.name, 1)
    taken = [name for name in (first, manifest_name(place.name)) if not resume and place.exists(name)]
    if taken and not overwrite:
        raise ExportError(f"{place.display_name(taken[0])} exists: choose another name, or overwrite it (--force)")
    try:
        with (
            drafting(place.draft, overwrite=overwrite, resume=resume) as draft,
            closing(connect(exporting)) as client,
        ):
            described = {**request.to_dict(), **asdict(shape), "database": exporting.clickhouse_database}
            snapshot = Snapshot(
                client,
                request,
                database=exporting.clickhouse_database,
                output_format=shape,
                slice_rows=slice_rows,
                **_known(draft, described, watermark),
            )
            plan = {
                **described,
                "watermark": snapshot.ledger.watermark.to_dict(),
                "slices": [asdict(part) for part in snapshot.slices],
            }
            draft.begin(plan, shape, range_size=range_size(snapshot.rows))
            with closing(snapshot):
                files = _fill(draft, snapshot, shape, progress)
            if repeats is not None and (told := _difference(files, repeats)):
                draft.reject()
                raise ExportError(f"{told}; {retention.notice(request.start, now=now) or _UNEXPECTED}; {_NOTHING}")
            manifest = manifest_bytes(
                request=request,
                shape=shape,
                books=snapshot.ledger,
                files=files,
                name=place.name,
                rows_per_checksum=range_size(snapshot.rows),
                requester=requester or _this_user(),
                now=now,
                key=key,
            )
            _publish(draft, place, manifest, key)
    except FileExistsError as error:
        raise ExportError(f"{error.filename} exists, and is of no export that is known here: remove it") from error
    except OSError as error:
        raise ExportError(f"cannot write {error.filename or target}: {error.strerror}; nothing was exported") from error
    return _result(
        files, snapshot.ledger, request, now, manifest=place.display_name(manifest_name(place.name)), key=key
    )


def write_events(
    settings: ClickHouseSettings,
    request: ExportRequest,
    stream: IO[bytes],
    *,
    shape: OutputFormat | None = None,
    watermark: Watermark | None = None,
    progress: Progress = _unseen,
) -> ExportResult:
    """Write the events of a request to a stream, such as a pipe. There is no manifest.

    Blocks until all is written. Memory does not grow with the number of events.

    Raises:
        ExportError: ClickHouse failed or sent less than it has. What the stream got so far is worthless.
        OSError: The stream refused.
    """
    now = datetime.now(UTC)
    digest = Digest()
    shape = shape or OutputFormat()
    rows = 0

    def write(data: bytes) -> None:
        digest.add(data)
        stream.write(data)

    with closing(connect(settings)) as client:
        snapshot = Snapshot(
            client, request, database=settings.clickhouse_database, output_format=shape, watermark=watermark
        )
        if shape.format == "parquet":
            raise ExportError("parquet is written to a file: whether a stream of it is whole cannot be told")
        write(header(shape))
        with closing(snapshot):
            for part in snapshot.slices:
                for chunk in snapshot.records(part):
                    write(chunk.data)
                    rows += len(chunk.starts)
                    progress(rows, snapshot.rows)
    stream.flush()
    file = FileSummary(
        name="-",
        rows=rows,
        first_row=1,
        bytes=digest.bytes,
        sha256=digest.sha256,
        content_bytes=digest.bytes,
        content_sha256=digest.sha256,
        checksums=(),
    )
    return _result([file], snapshot.ledger, request, now)


def _known(draft: Draft, described: Mapping[str, object], watermark: Watermark | None) -> dict[str, Any]:
    """What a snapshot need not ask for: an export that is resumed keeps its watermark and its slices."""
    if draft.plan is None:
        return {"watermark": watermark}
    differing = [name for name, value in described.items() if draft.plan.get(name) != value]
    kept = Watermark.from_json(draft.plan)
    if watermark is not None and watermark != kept:
        differing.append("watermark")
    if differing:
        raise ExportError(
            f"the unfinished export to {draft.path} differs in {', '.join(differing)}: resume it with what it was "
            "begun with, or begin anew (--force)"
        )
    return {"watermark": kept, "slices": [Slice(**part) for part in draft.plan["slices"]]}


def _fill(draft: Draft, snapshot: Snapshot, shape: OutputFormat, progress: Progress) -> list[FileSummary]:
    progress(draft.rows, snapshot.rows)
    for part in snapshot.slices[draft.slices_done :]:
        if shape.format == "parquet":
            for piece in snapshot.pieces(part):
                draft.write_bytes(piece)
                progress(0, snapshot.rows)
            continue
        for chunk in snapshot.records(part):
            draft.write(chunk)
            progress(draft.rows, snapshot.rows)
        draft.checkpoint()
    if shape.format != "parquet":
        files = draft.finish()
        if sum(each.rows for each in files) != snapshot.rows:
            raise ExportError(f"what is written has not {snapshot.rows:,} rows, as were counted: begin anew (--force)")
        return files
    files = draft.finish(snapshot.rows)
    came = stored_rows(draft.part_of(files[0]))
    if came != snapshot.rows:
        raise wrong_count(snapshot.slices[0], came)
    progress(came, snapshot.rows)
    return files


def _difference(files: list[FileSummary], earlier: Mapping[str, Any]) -> str | None:
    """How the content differs from that of an earlier export with the same watermark; None if it does not."""
    had = [(each["rows"], each["content_sha256"]) for each in earlier["files"]]
    if [(each.rows, each.content_sha256) for each in files] == had:
        return None
    rows = sum(each.rows for each in files)
    return f"the content is not that of the earlier export: it had {earlier['rows']:,} rows, now there are {rows:,}"


def _publish(draft: Draft, place: Destination, manifest: bytes, key: SigningKey | None) -> None:
    if key is not None:
        draft.add(signature_name(place.name), key.sign(manifest))
    draft.add(manifest_name(place.name), manifest)
    draft.publish(place.place)
    place.close()


def _result(
    files: list[FileSummary],
    books: LedgerExtract,
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
        rows=sum(each.rows for each in files),
        watermark=books.watermark,
        balanced=books.is_balanced,
        retention_notice=retention.notice(request.start, now=now),
    )


def _export_settings(settings: ClickHouseSettings) -> ExportSettings:
    if isinstance(settings, ExportSettings):
        return settings
    return ExportSettings(**{each.name: getattr(settings, each.name) for each in fields(ClickHouseSettings)})


def _this_user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
