"""``auditstream reconcile``."""

import json
import sys
from dataclasses import asdict

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import connect
from auditstream_ops.ledger.reconcile import Copy, Findings
from auditstream_ops.ledger.reconcile import reconcile as examine
from auditstream_schemas.settings import ClickHouseSettings, loaders


@click.command()
@click_options(ClickHouseSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def reconcile(settings: ClickHouseSettings, *, as_json: bool) -> None:
    """Look for events that are visible more than once.

    Two sinks that take one id at the same moment, from two partitions, cannot know of each other. What has
    the same content collapses. What has not is shown twice, and found here: with the rows, the first to
    come first, and where each came from. Changes nothing. Exit code 1 if an id is visible more than once.

    \b
    Examples:
      auditstream reconcile
      auditstream reconcile --json | jq '.doubled[].id'
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    found = examine(connect(settings), settings.clickhouse_database)
    if as_json:
        click.echo(json.dumps({**asdict(found), "uncollapsed": found.uncollapsed}, default=str))
    else:
        _show(found)
    sys.exit(1 if found.doubled else 0)


def _show(found: Findings) -> None:
    click.echo(f"{found.rows:,} rows, {found.visible:,} of them visible")
    if found.uncollapsed:
        click.echo(f"{found.uncollapsed:,} rows wait for a merge to remove them: harmless, no reader sees them")
    for each in found.doubled:
        what = "scope or time differ" if each.has_other_key else "content differs"
        click.echo(f"id {each.id} is visible {each.visible} times: {what}")
        for number, copy in enumerate(each.copies):
            click.echo(f"  {'first' if number == 0 else 'later'}  {_line(copy)}")
    total = found.other_keys + found.other_contents
    if not total:
        click.secho("no id is visible more than once", fg="green", bold=True)
        return
    if total > len(found.doubled):
        click.echo(f"and {total - len(found.doubled):,} more ids")
    click.echo(
        "Compare the rows by their place on the topic. The first is what readers saw first; a later one is "
        "another event that took its id, and its emitter should send it again under an id of its own."
    )
    click.secho(
        f"{total:,} ids are visible more than once: {found.other_keys:,} with another scope or time, "
        f"{found.other_contents:,} with other content",
        fg="red",
        bold=True,
    )


def _line(copy: Copy) -> str:
    taken = copy.ingested_at.isoformat(timespec="milliseconds")
    place = f"{copy.topic}[{copy.partition}]@{copy.offset}"
    return f"taken {taken} from {place}, occurred {copy.occurred_at}, scope {copy.scope_id or '(none)'}"
