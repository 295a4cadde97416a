"""``auditstream export``."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm
from typed_settings import click_options

from auditstream_export import (
    ExportFilter,
    ExportRequest,
    ExportResult,
    Progress,
    export_events,
    write_csv,
)
from auditstream_schemas.errors import ExportError
from auditstream_schemas.settings import ClickHouseSettings, loaders
from auditstream_schemas.timestamp import parse_moment

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_EXAMPLES = """\b
Examples:
  auditstream export --from 2026-01-01 --to 2026-02-01 -o january.csv.zst
  auditstream export --from 2026-01-31T09:00:00+01:00 --to 2026-02-01 --scope org-7 -o org-7.csv
  auditstream export --from 2026-01-01 --to 2026-02-01 --action 'project.*' --success false -o failed.csv
  auditstream export --from 2026-01-01 --to 2026-02-01 --actor u-7 -o - | head
"""


def _moment(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        return parse_moment(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None


@click.command(epilog=_EXAMPLES)
@click.option(
    "--from",
    "start",
    callback=_moment,
    metavar="TIME",
    required=True,
    help="First instant of the range: a date (its midnight in UTC), or ISO-8601 with a zone.",
)
@click.option(
    "--to",
    "end",
    callback=_moment,
    metavar="TIME",
    required=True,
    help="First instant after the range; likewise.",
)
@click.option("--scope", metavar="ID", help="Only events whose target belongs to this account.")
@click.option(
    "--action",
    "actions",
    metavar="GLOB",
    multiple=True,
    help="Only these actions; * is any run of characters, dots included, ? is one. May be given again.",
)
@click.option("--actor", metavar="ID", help="Only what this actor did.")
@click.option("--target", metavar="ID", help="Only what was done to this target.")
@click.option("--success", type=click.BOOL, metavar="true|false", help="Only what succeeded, or what did not.")
@click.option("--request", metavar="ID", help="Only what this request caused.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    help="Where to write: compressed if it ends in .gz or .zst; - is standard output, without a manifest.",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click_options(ClickHouseSettings, loaders(), argname="settings", show_envvars_in_help=True)
def export(
    settings: ClickHouseSettings,
    *,
    start: int,
    end: int,
    actions: tuple[str, ...],
    output: str,
    force: bool,
    as_json: bool,
    quiet: bool,
    **conditions: Any,
) -> None:
    """Write events to a CSV file, oldest first.

    The columns are the fields of an event; nested ones are JSON. The file is FILE.part until it is whole,
    and FILE.manifest.json holds its row count and SHA-256. Every event that was visible at the start is in
    it exactly once; events that arrive meanwhile are not. Whatever goes wrong, no FILE is left behind.
    """
    request = ExportRequest(start=start, end=end, filter=ExportFilter(actions=actions, **conditions))
    for number in _SIGNALS:
        # Under nohup a hang-up is ignored, and stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    with tqdm(unit=" rows", unit_scale=True, desc="export", disable=quiet or not sys.stderr.isatty()) as bar:

        def show(rows: int, total: int) -> None:
            bar.total = total
            bar.update(rows - bar.n)

        if output == "-":
            result = _to_standard_output(settings, request, show)
        else:
            result = export_events(settings, request, Path(output), overwrite=force, progress=show)
    _print(result, as_json=as_json)


def _to_standard_output(settings: ClickHouseSettings, request: ExportRequest, progress: Progress) -> ExportResult:
    try:
        with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as stream:
            return write_csv(settings, request, stream, progress=progress)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportError(f"cannot write to standard output: {error.strerror}; what it got is not whole") from error


def _stop(number: int, _frame: object) -> None:
    # Unwinds like an error, so that the part file is removed on the way.
    raise SystemExit(128 + number)


def _print(result: ExportResult, *, as_json: bool) -> None:
    if result.rows == 0:
        click.echo("auditstream: no event matches; the export is a header alone", err=True)
    if result.retention_notice is not None:
        click.echo(f"auditstream: {result.retention_notice}", err=True)
    # Standard output has the CSV if no file does.
    err = result.path is None
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), default=str), err=err)
        return
    noun = "row" if result.rows == 1 else "rows"
    click.echo(f"{result.rows:,} {noun}, SHA-256 {result.sha256}, {result.path or 'standard output'}", err=err)
