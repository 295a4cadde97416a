"""``auditstream export jobs``."""

import getpass
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from typed_settings import click_options

from auditstream_export import ExportFilter, ExportJob, ExportJobs, ExportRequest, JobSettings, OutputFormat
from auditstream_export.formats import Format, Profile
from auditstream_export.jobs import SUFFIXES, Suffix
from auditstream_ops.commands.export_options import event_options
from auditstream_ops.self_audit import DELIVERY_SECONDS, TrailEmitter
from auditstream_schemas.errors import ExportError
from auditstream_schemas.event import Entity
from auditstream_schemas.settings import loaders
from auditstream_schemas.timestamp import format_timestamp

_JOB = click.argument("id", type=click.UUID)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_SETTINGS = click_options(JobSettings, loaders(), argname="settings", show_envvars_in_help=True)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object for each export.")
_REQUESTER_HELP = "Name for the audit log; the user of this process by default."
_REQUESTER = click.option("--requester", metavar="NAME", help=_REQUESTER_HELP)


@click.group()
def jobs() -> None:
    """Request exports that `auditstream exporter` runs, list them, and download their files.

    \b
    Examples:
      auditstream export jobs request --from 2026-01-01 --to 2026-02-01 --scope org-7 --suffix .gz
      auditstream export jobs list --scope org-7
      auditstream export jobs show 019bc0de-0000-7005-8000-000000009aab
      auditstream export jobs fetch 019bc0de-0000-7005-8000-000000009aab
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    # typed-settings stores the settings of `auditstream export` under the name that a subcommand uses for its own.
    click.get_current_context().obj = {}


@jobs.command("list")
@click.option("--scope", "scopes", metavar="ID", multiple=True, help="Only exports of this scope. Repeatable.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="Maximum number of exports.")
@_AS_JSON
@_SETTINGS
def list_jobs(settings: JobSettings, *, scopes: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List the latest exports, newest first."""
    with _jobs(settings) as service:
        for job in service.jobs(scopes or None, limit=limit):
            _show(job, as_json=as_json)


@jobs.command()
@_JOB
@_AS_JSON
@_SETTINGS
def show(settings: JobSettings, *, id: UUID, as_json: bool) -> None:
    """Show one export."""
    with _jobs(settings) as service:
        job = service.job(id)
    if job is None:
        raise ExportError(f"there is no export {id}")
    if as_json:
        _show(job, as_json=True)
        return
    for name, value in job.to_dict().items():
        if value not in (None, "", []):
            click.echo(f"{name:18} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@jobs.command()
@event_options(for_job=True)
@click.option("--suffix", type=click.Choice(SUFFIXES), default="", help="Compress the file.")
@_REQUESTER
@_AS_JSON
@_SETTINGS
def request(
    settings: JobSettings,
    *,
    start: int,
    end: int,
    format_: Format | None,
    profile: Profile,
    split_rows: int | None,
    suffix: Suffix,
    requester: str | None,
    as_json: bool,
    **conditions: Any,
) -> None:
    """Request an export, and print its id. The request is recorded in the audit log."""
    export_request = ExportRequest(start=start, end=end, filter=ExportFilter(**conditions))
    output_format = OutputFormat(format=format_ or "csv", profile=profile, split_rows=split_rows)
    with _jobs(settings) as service:
        job = service.request(export_request, requester=_entity(requester), output_format=output_format, suffix=suffix)
    _show(job, as_json=as_json)


@jobs.command()
@_JOB
@_REQUESTER
@_AS_JSON
@_SETTINGS
def cancel(settings: JobSettings, *, id: UUID, requester: str | None, as_json: bool) -> None:
    """Cancel an export that is queued or running; a running one stops within some seconds."""
    with _jobs(settings) as service:
        _show(service.cancel(id, by=_entity(requester)), as_json=as_json)


@jobs.command()
@_JOB
@_REQUESTER
@_AS_JSON
@_SETTINGS
def retry(settings: JobSettings, *, id: UUID, requester: str | None, as_json: bool) -> None:
    """Run a failed or cancelled export again, up to the same offsets."""
    with _jobs(settings) as service:
        _show(service.retry(id, by=_entity(requester)), as_json=as_json)


@jobs.command()
@_JOB
@click.option("-o", "--output", type=_FOLDER, default=".", help="Directory for the files; by default the current one.")
@_REQUESTER
@_SETTINGS
def fetch(settings: JobSettings, *, id: UUID, output: Path, requester: str | None) -> None:
    """Download the files of a finished export, including the manifest and its signature."""
    with _jobs(settings) as service:
        job = service.job(id)
        for file in job.files if job is not None else ():
            with service.open(id, by=_entity(requester), name=file.name) as open_file:
                _save(output / file.name, open_file.pieces)
            click.echo(output / file.name)
        if job is None or not job.files:
            raise ExportError(f"export {id} is {job.state if job else 'unknown'}: it has no files")


@contextmanager
def _jobs(settings: JobSettings) -> Iterator[ExportJobs]:
    with TrailEmitter(wait_seconds=DELIVERY_SECONDS) as emit, closing(ExportJobs(settings, emit)) as service:
        yield service


def _entity(requester: str | None) -> Entity:
    return Entity(id=requester or getpass.getuser(), type="user")


def _save(path: Path, pieces: Iterator[bytes]) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as stream:
            for piece in pieces:
                stream.write(piece)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ExportError(f"cannot write {path}: {error.strerror}") from error


def _show(job: ExportJob, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(job.to_dict(), ensure_ascii=False))
        return
    rows = f"{job.rows:,}" if job.total is None else f"{job.rows:,} of {job.total:,}"
    left = "" if job.remaining is None else f", {job.rate:,.0f} a second, {job.remaining:,.0f} s left"
    scopes = " ".join(job.scopes) or "all"
    click.echo(
        f"{job.id}  {format_timestamp(job.requested_at)[:19]}Z  {job.state:9}  {rows} rows{left}  {scopes}  "
        f"{job.requester.id}  {job.error}".rstrip()
    )
