"""``auditstream export``."""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm
from typed_settings import click_options

from auditstream_export import (
    ExportFilter,
    ExportRequest,
    ExportResult,
    ExportSettings,
    OutputFormat,
    Watermark,
    export_events,
    format_of,
    write_events,
)
from auditstream_export.formats import Format, Profile
from auditstream_ops.commands.export_jobs import jobs
from auditstream_ops.commands.export_options import event_options
from auditstream_ops.commands.export_verify import keygen, verify
from auditstream_schemas.errors import ExportError
from auditstream_schemas.settings import loaders

_EXAMPLES = """\b
Examples:
  auditstream export --from 2026-01-01 --to 2026-02-01 -o january.csv.zst
  auditstream export --from 2026-01-31T09:00:00+01:00 --to 2026-02-01 --scope org-7 -o org-7.csv
  auditstream export --from 2026-01-01 --to 2026-02-01 --action 'project.*' --success false -o failed.csv
  auditstream export --from 2026-01-01 --to 2026-02-01 --split-rows 1000000 -o s3://audit/2026/january.ndjson.zst
  auditstream export --watermark january.csv.zst.manifest.json -o again.csv.zst
  auditstream export --from 2026-01-01 --to 2026-02-01 --actor u-7 -o - | head
  auditstream export verify --public-key key.pem.pub january.csv.zst
"""


@click.group(epilog=_EXAMPLES, invoke_without_command=True)
@event_options(for_job=False)
@click.option(
    "--watermark",
    "watermark_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Only events up to these offsets: the manifest of an earlier export, or the list in it. Without --from and "
    "--to that export is repeated, and fails if the content is not the same.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="A path or s3://bucket/key, compressed if it ends in .gz or .zst; - is standard output, without a manifest.",
)
@click.option("--requester", metavar="NAME", help="Name of the requester for the manifest; user@host by default.")
@click.option("--resume", is_flag=True, help="Resume an unfinished export to FILE.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click_options(ExportSettings, loaders(), argname="settings", show_envvars_in_help=True)
def export(
    settings: ExportSettings,
    *,
    start: int | None,
    end: int | None,
    watermark_file: Path | None,
    output: str | None,
    format_: Format | None,
    profile: Profile,
    split_rows: int | None,
    requester: str | None,
    resume: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    **conditions: Any,
) -> None:
    """Write events to a file, oldest first: CSV, NDJSON or Parquet.

    The columns are the fields of an event; nested fields are JSON. The file is named FILE.part until it is complete.
    FILE.manifest.json describes its content and the Kafka offsets that it covers. Events that arrive later are not
    included, so the export can be repeated with the same result. After an error there is no new FILE.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is not None:
        return
    if output is None:
        raise click.UsageError("missing option '-o' / '--output'", ctx)
    manifest = None if watermark_file is None else _read_json(watermark_file)
    watermark = None if manifest is None else Watermark.from_json(manifest)
    event_filter = ExportFilter(**conditions)
    repeats = None
    if start is None and end is None and isinstance(manifest, dict):
        if event_filter != ExportFilter():
            raise click.UsageError("a repeated export has the filter of its manifest; or give --from and --to", ctx)
        repeats = manifest
        request, output_format = ExportRequest.from_dict(manifest), OutputFormat.from_dict(manifest)
        if output != "-" and output_format.format != format_of(output):
            raise click.UsageError(f"the export of that manifest is {output_format.format}: use that suffix", ctx)
    elif start is None or end is None:
        raise click.UsageError(f"missing option '{'--from' if start is None else '--to'}'", ctx)
    else:
        request = ExportRequest(start=start, end=end, filter=event_filter)
        output_format = OutputFormat(format=format_ or format_of(output), profile=profile, split_rows=split_rows)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup SIGHUP is ignored, and must stay ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit)
    with tqdm(unit=" rows", unit_scale=True, desc="export", disable=quiet or not sys.stderr.isatty()) as bar:

        def show(rows: int, total: int) -> None:
            bar.total = total
            bar.update(rows - bar.n)

        options: dict[str, Any] = {"output_format": output_format, "watermark": watermark, "progress": show}
        if output == "-":
            result = _to_standard_output(settings, request, **options)
        else:
            options |= {"repeats": repeats, "requester": requester, "overwrite": force, "resume": resume}
            result = export_events(settings, request, output, **options)
    _print(result, output, as_json=as_json)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot read the watermark {path}: {error}") from error


def _exit(number: int, _frame: object) -> None:
    # The exception ends the export, which then deletes its part files.
    raise SystemExit(128 + number)


def _to_standard_output(settings: ExportSettings, request: ExportRequest, **options: Any) -> ExportResult:
    try:
        with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as stream:
            return write_events(settings, request, stream, **options)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportError(f"cannot write to standard output: {error.strerror}; its content is incomplete") from error


def _print(result: ExportResult, output: str, *, as_json: bool) -> None:
    if result.rows == 0:
        click.echo("auditstream: no event matches; the export has no rows", err=True)
    if result.retention_notice is not None:
        click.echo(f"auditstream: {result.retention_notice}", err=True)
    if not result.balanced:
        click.echo("auditstream: the ledger does not balance: see `auditstream verify`", err=True)
    # If standard output has the rows, the summary goes to standard error.
    err = result.manifest is None
    if as_json:
        files = [{name: value for name, value in asdict(file).items() if name != "checksums"} for file in result.files]
        content = {**asdict(result), "files": files, "watermark": result.watermark.to_dict()}
        click.echo(json.dumps(content, default=str), err=err)
        return
    directory = output.rpartition("/")[0]
    for file in result.files:
        name = "standard output" if err else f"{directory}/{file.name}" if directory else file.name
        noun = "row" if file.rows == 1 else "rows"
        click.echo(f"{file.rows:,} {noun}, SHA-256 {file.sha256}, {name}", err=err)


export.add_command(jobs)
export.add_command(verify)
export.add_command(keygen)
