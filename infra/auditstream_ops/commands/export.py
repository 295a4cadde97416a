"""``auditstream export``."""

import json
import os
import signal
import sys
from collections.abc import Mapping
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
from auditstream_export.formats.output_format import FORMATS, PROFILES, Format, Profile
from auditstream_export.verify.manifest import shape_of
from auditstream_ops.commands.export_jobs import jobs
from auditstream_ops.commands.export_options import filter_options, moment
from auditstream_ops.commands.export_verify import keygen, verify
from auditstream_schemas.errors import ExportError
from auditstream_schemas.settings import loaders

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
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
@click.option(
    "--from",
    "start",
    callback=moment,
    metavar="TIME",
    help="First instant of the range: a date (its midnight in UTC), or ISO-8601 with a zone.",
)
@click.option(
    "--to",
    "end",
    callback=moment,
    metavar="TIME",
    help="First instant after the range; likewise.",
)
@filter_options
@click.option(
    "--watermark",
    "watermark_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Events up to these offsets alone: the manifest of an earlier export, or the list in it. Without --from and "
    "--to it is that export once more, which must come out the same.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where to write: a path or s3://bucket/key, compressed if it ends in .gz or .zst; - is standard output, "
    "without a manifest.",
)
@click.option("--format", "format_", type=click.Choice(FORMATS), help="By default FILE's suffix tells it, else csv.")
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="raw",
    show_default=True,
    help="Of csv: exact cells, or cells that no spreadsheet program takes for formulas.",
)
@click.option(
    "--split-rows", type=click.IntRange(min=1), metavar="N", help="Files of N rows each: FILE-00001, FILE-00002 ..."
)
@click.option("--requester", metavar="NAME", help="Who asked, for the manifest; user@host by default.")
@click.option("--resume", is_flag=True, help="Go on with an export to FILE that was left unfinished.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click_options(ExportSettings, loaders(), argname="settings", show_envvars_in_help=True)
def export(
    settings: ExportSettings,
    *,
    start: int | None,
    end: int | None,
    actions: tuple[str, ...],
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

    The columns are the fields of an event; nested ones are JSON. The file is FILE.part until it is whole, and
    FILE.manifest.json tells what is in it and how far into the topic it goes: events that arrive later are not in
    it, and it can be made again. Whatever goes wrong, no FILE is left behind.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is not None:
        return
    if output is None:
        raise click.UsageError("missing option '-o' / '--output'", ctx)
    found = _read_json(watermark_file) if watermark_file is not None else None
    watermark = None if found is None else Watermark.from_json(found)
    wanted = ExportFilter(actions=actions, **conditions)
    repeats = None
    if start is None and end is None and isinstance(found, dict):
        if wanted != ExportFilter():
            raise click.UsageError("an export that is made again has the filter of its manifest; or give --from", ctx)
        repeats = found
        request, shape = ExportRequest.from_dict(found), shape_of(found)
        if output != "-" and shape.format != format_of(output):
            raise click.UsageError(f"the export of that manifest is {shape.format}: give it a name that says so", ctx)
    elif start is None or end is None:
        raise click.UsageError(f"missing option '{'--from' if start is None else '--to'}'", ctx)
    else:
        request = ExportRequest(start=start, end=end, filter=wanted)
        shape = OutputFormat(format=format_ or format_of(output), profile=profile, split_rows=split_rows)
    _heed_signals()
    with tqdm(unit=" rows", unit_scale=True, desc="export", disable=quiet or not sys.stderr.isatty()) as bar:

        def show(rows: int, total: int) -> None:
            bar.total = total
            bar.update(rows - bar.n)

        if output == "-":
            result = _to_standard_output(settings, request, shape=shape, watermark=watermark, progress=show)
        else:
            result = export_events(
                settings,
                request,
                output,
                shape=shape,
                watermark=watermark,
                repeats=repeats,
                requester=requester,
                overwrite=force,
                resume=resume,
                progress=show,
            )
    _print(result, output, as_json=as_json)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot read the watermark {path}: {error}") from error


def _heed_signals() -> None:
    for number in _SIGNALS:
        # Under nohup a hang-up is ignored, and stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _to_standard_output(settings: ExportSettings, request: ExportRequest, **options: Any) -> ExportResult:
    try:
        with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as stream:
            return write_events(settings, request, stream, **options)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportError(f"cannot write to standard output: {error.strerror}; what it got is not whole") from error


def _stop(number: int, _frame: object) -> None:
    # Unwinds like an error, so that the part file is removed on the way.
    raise SystemExit(128 + number)


def _print(result: ExportResult, output: str, *, as_json: bool) -> None:
    if result.rows == 0:
        click.echo("auditstream: no event matches; the export has no rows", err=True)
    if result.retention_notice is not None:
        click.echo(f"auditstream: {result.retention_notice}", err=True)
    if not result.balanced:
        click.echo("auditstream: the ledger's books do not balance: see `auditstream verify`", err=True)
    # Standard output has the rows if no file does.
    err = result.manifest is None
    if as_json:
        click.echo(json.dumps(_json(result), default=str), err=err)
        return
    folder = output.rpartition("/")[0]
    for file in result.files:
        name = "standard output" if err else f"{folder}/{file.name}" if folder else file.name
        noun = "row" if file.rows == 1 else "rows"
        click.echo(f"{file.rows:,} {noun}, SHA-256 {file.sha256}, {name}", err=err)


def _json(result: ExportResult) -> Mapping[str, object]:
    files = [{name: value for name, value in asdict(each).items() if name != "checksums"} for each in result.files]
    return {**asdict(result), "files": files, "watermark": result.watermark.to_dict()}


export.add_command(jobs)
export.add_command(verify)
export.add_command(keygen)
