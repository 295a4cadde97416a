"""``auditstream reconcile``."""

import json
import sys
from dataclasses import asdict

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import connect
from auditstream_ops.ledger import reconcile as repeated_ids
from auditstream_schemas.settings import ClickHouseSettings, loaders


@click.command()
@click_options(ClickHouseSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reconcile(settings: ClickHouseSettings, *, as_json: bool) -> None:
    """Look for events that readers see more than once.

    Two sinks that store the same id from two partitions at the same moment do not see each other's row. Rows
    with the same content collapse into one. Rows with different content stay visible. This command lists
    them, the earliest first, each with the topic, partition and offset that it came from. It changes nothing.

    Exit codes: 0 no id is visible more than once; 1 at least one is; 2 called wrongly.

    \b
    Examples:
      auditstream reconcile
      auditstream reconcile --json | jq '.repeated[].id'
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    report = repeated_ids.reconcile(connect(settings), settings.clickhouse_database)
    if as_json:
        click.echo(json.dumps({**asdict(report), "uncollapsed": report.uncollapsed}, default=str))
    else:
        _print(report)
    sys.exit(1 if report.repeated else 0)


def _print(report: repeated_ids.ReconcileReport) -> None:
    click.echo(f"{report.rows:,} rows, {report.visible:,} of them visible")
    if report.uncollapsed:
        click.echo(f"{report.uncollapsed:,} rows will be removed by a merge; no reader sees them")
    for repeated in report.repeated:
        difference = "scope or time differ" if repeated.has_other_key else "content differs"
        click.echo(f"id {repeated.id} is visible {repeated.visible} times: {difference}")
        for number, row in enumerate(repeated.rows):
            click.echo(
                f"  {'later' if number else 'first'}  ingested {row.ingested_at.isoformat(timespec='milliseconds')} "
                f"from {row.topic}[{row.partition}]@{row.offset}, occurred {row.occurred_at}, "
                f"scope {row.scope_id or '(none)'}"
            )
    total = report.other_keys + report.other_contents
    if not total:
        click.secho("no id is visible more than once", fg="green", bold=True)
        return
    if total > len(report.repeated):
        click.echo(f"and {total - len(report.repeated):,} more ids")
    click.echo(
        "Readers saw the first row first. A later row is another event with the same id: "
        "its emitter should send it again under a new id."
    )
    click.secho(
        f"{total:,} ids are visible more than once: {report.other_keys:,} with another scope or time, "
        f"{report.other_contents:,} with other content",
        fg="red",
        bold=True,
    )
