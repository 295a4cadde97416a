"""``auditstream export jobs``."""

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import click
from typed_settings import click_options

from auditstream_export import ExportFilter, ExportJob, ExportJobs, ExportRequest, JobSettings, OutputFormat
from auditstream_export.formats.output_format import FORMATS, PROFILES
from auditstream_export.jobs.export_job import Suffix
from auditstream_ops.commands.export_options import filter_options, moment
from auditstream_ops.self_audit import DELIVERY_SECONDS, TrailEmitter
from auditstream_schemas.errors import ExportError
from auditstream_schemas.event import Entity
from auditstream_schemas.settings import loaders
from auditstream_schemas.timestamp import format_timestamp

_settings = click_options(JobSettings, loaders(), argname="settings", show_envvars_in_help=True)
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object for each export.")
_requester = click.option("--requester", metavar="NAME", help="Who asks, for the log; the user of this process.")


@click.group()
def jobs() -> None:
    """Ask for exports that `auditstream exporter` runs, and see what became of them.

    \b
    Examples:
      auditstream export jobs request --from 2026-01-01 --to 2026-02-01 --scope org-7 --suffix .gz
      auditstream export jobs list --scope org-7
      auditstream export jobs show 019bc0de-0000-7005-8000-000000009aab
      auditstream export jobs fetch 019bc0de-0000-7005-8000-000000009aab
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    # The settings of `auditstream export`, which typed-settings keeps under the name that those of a command have.
    click.get_current_context().obj = {}


@jobs.command("list")
@click.option("--scope", "scopes", metavar="ID", multiple=True, help="Only with events of this one, or another given.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many at most.")
@_as_json
@_settings
def list_jobs(settings: JobSettings, *, scopes: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List the latest exports, newest first."""
    with _jobs(settings) as service:
        for job in service.jobs(scopes or None, limit=limit):
            _show(job, as_json=as_json)


@jobs.command()
@click.argument("id", type=click.UUID)
@_as_json
@_settings
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
@click.option("--from", "start", required=True, callback=moment, metavar="TIME", help="First instant of the range.")
@click.option("--to", "end", required=True, callback=moment, metavar="TIME", help="First instant after the range.")
@filter_options
@click.option("--format", "format_", type=click.Choice(FORMATS), default="csv", show_default=True, help="Of the file.")
@click.option("--profile", type=click.Choice(PROFILES), default="raw", show_default=True, help="Of csv.")
@click.option("--split-rows", type=click.IntRange(min=1), metavar="N", help="Files of N rows each.")
@click.option("--suffix", type=click.Choice(["", ".gz", ".zst"]), default="", help="Compress the file.")
@_requester
@_as_json
@_settings
def request(
    settings: JobSettings,
    *,
    start: int,
    end: int,
    format_: Any,
    profile: Any,
    split_rows: int | None,
    suffix: str,
    requester: str | None,
    as_json: bool,
    **conditions: Any,
) -> None:
    """Ask for an export; prints its id. What you ask for is an event of its own."""
    wanted = ExportRequest(start=start, end=end, filter=ExportFilter(**conditions))
    shape = OutputFormat(format=format_, profile=profile, split_rows=split_rows)
    with _jobs(settings) as service:
        job = service.request(wanted, requester=_who(requester), shape=shape, suffix=cast("Suffix", suffix))
    _show(job, as_json=as_json)


@jobs.command()
@click.argument("id", type=click.UUID)
@_requester
@_as_json
@_settings
def cancel(
    settings: JobSettings,
    *,
    id: UUID,
    requester: str | None,
    as_json: bool,
) -> None:
    """Stop an export that is queued or running; the worker does within some seconds."""
    with _jobs(settings) as service:
        _show(service.cancel(id, by=_who(requester)), as_json=as_json)


@jobs.command()
@click.argument("id", type=click.UUID)
@_requester
@_as_json
@_settings
def retry(
    settings: JobSettings,
    *,
    id: UUID,
    requester: str | None,
    as_json: bool,
) -> None:
    """Run an export that failed or was cancelled once more, up to the same offsets if it had any."""
    with _jobs(settings) as service:
        _show(service.retry(id, by=_who(requester)), as_json=as_json)


@jobs.command()
@click.argument("id", type=click.UUID)
@click.option(
    "-o",
    "--output",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    metavar="FOLDER",
    help="Where to; this folder by default.",
)
@_requester
@_settings
def fetch(
    settings: JobSettings,
    *,
    id: UUID,
    output: Path,
    requester: str | None,
) -> None:
    """Download the files of a finished export, the manifest and its signature with them."""
    with _jobs(settings) as service:
        job = service.job(id)
        for file in job.files if job is not None else ():
            with service.open(id, by=_who(requester), name=file.name) as found:
                _save(output / file.name, found.pieces)
            click.echo(output / file.name)
        if job is None or not job.files:
            raise ExportError(f"export {id} is {job.state if job else 'not known'}: there is no file of it")


@contextmanager
def _jobs(settings: JobSettings) -> Iterator[ExportJobs]:
    with TrailEmitter(wait_seconds=DELIVERY_SECONDS) as emit:
        service = ExportJobs(settings, emit)
        try:
            yield service
        finally:
            service.close()


def _who(requester: str | None) -> Entity:
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
