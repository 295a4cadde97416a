"""``auditstream verify``, ``reconcile`` and ``accept-loss``: checks of the ledger, and its repair."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import clickhouse_errors, connect
from auditstream_ops.commands.confirmation import confirm, operator, require_terminal
from auditstream_ops.ledger import reconcile as repeated_ids
from auditstream_ops.ledger import verify as ledger_checks
from auditstream_ops.ledger.losses import LossSettings, accept, deleted_unread
from auditstream_ops.ledger.verify import TopicCheck
from auditstream_schemas.settings import ClickHouseSettings, loaders
from auditstream_sink import SinkSettings

_COUNTS = ("read", "stored", "duplicates", "conflicts", "invalid", "expired", "rows")


@click.command()
@click_options(SinkSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option("--topic-id", type=click.UUID, help="Check only this id of the topic.")
@click.option("--complete", is_flag=True, help="Also report records of the topic that are not in the ledger yet.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(settings: SinkSettings, *, topic_id: UUID | None, complete: bool, as_json: bool) -> None:
    """Check that the ledger balances: no event is lost, and none is stored twice.

    The sink writes one ledger line for each batch and partition. This command compares the ledger with the
    event log and the topic. Every offset must be in exactly one line, the counts of every line must add up,
    its rows must be in the event log, and the group must not have committed offsets beyond the ledger.

    It changes nothing, and may run beside a sink. A topic that was deleted and created again has a new id and
    a new ledger; each id is checked.

    Exit codes: 0 the ledger balances, or is empty; 1 it does not balance, and the offsets are named;
    2 called wrongly.

    \b
    Examples:
      auditstream verify
      auditstream verify --complete
      auditstream verify --json | jq '.topics[].partitions[].faults[]'
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    client, database = connect(settings), settings.clickhouse_database
    with clickhouse_errors():
        topics = ledger_checks.verify(client, database, settings, topic_id=topic_id, complete=complete)
    balanced = all(topic.is_balanced for topic in topics)
    if as_json:
        report = {"topic": settings.topic, "balanced": balanced, "topics": [asdict(topic) for topic in topics]}
        click.echo(json.dumps(report, default=str))
    else:
        for topic in topics:
            _print_table(settings.topic, topic)
        _print_conclusion(topics)
    sys.exit(0 if balanced else 1)


def _print_table(name: str, topic: TopicCheck) -> None:
    earlier = "" if topic.is_current else ", an earlier topic of that name"
    click.echo(f"{name}, id {topic.topic_id}{earlier}")
    headings = ("lag", "committed", *_COUNTS)
    click.echo(f"{'partition':>9} {'offsets':>19} " + " ".join(f"{heading:>10}" for heading in headings))
    for check in topic.partitions:
        offsets = f"{check.first_offset}..{check.last_offset}" if check.batches else "none"
        figures = [getattr(check, heading) for heading in headings]
        cells = " ".join(f"{'-' if figure is None else f'{figure:,}':>10}" for figure in figures)
        click.echo(f"{check.partition:>9} {offsets:>19} {cells}")
    for check in topic.partitions:
        for note in check.notes:
            click.echo(f"  note: partition {check.partition}: {note}")
    click.echo()


def _print_conclusion(topics: Sequence[TopicCheck]) -> None:
    for topic in topics:
        for check in topic.partitions:
            for problem in check.problems:
                click.echo(f"{topic.topic_id} partition {check.partition}: {problem}")
    read, batches, lag, lost = (
        sum(getattr(check, name) or 0 for topic in topics for check in topic.partitions)
        for name in ("read", "batches", "lag", "lost")
    )
    waiting = f", {lag:,} records wait on the topic" if lag else ""
    waiting += f"; {lost:,} offsets are LOST, as a person accepted" if lost else ""
    if not all(topic.is_balanced for topic in topics):
        click.secho(f"the ledger does NOT balance{waiting}", fg="red", bold=True)
    elif not batches:
        click.echo(f"the ledger is empty{waiting}")
    else:
        click.secho(f"the ledger balances: {read:,} records in {batches:,} batches{waiting}", fg="green", bold=True)


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


@click.command("accept-loss")
@click_options(LossSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option("--why", required=True, metavar="TEXT", help="The cause, for later readers of the ledger.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def accept_loss(settings: LossSettings, *, why: str, yes: bool) -> None:
    """Let the sink read on after the broker deleted records that no sink had read.

    The sink stops at such a gap, because events may be lost: an outage lasted longer than the topic's
    retention. Emit the events again if you can, and lengthen the retention. This command enters the gap into
    the ledger as lost, with your name and reason. The sink then reads on behind the gap, and `auditstream
    verify` reports the lost offsets from then on. Without a gap the command does nothing.

    Exit codes: 0 done, or nothing is lost; 1 failed, or the answer was no; 2 called wrongly.

    \b
    Example:
      auditstream accept-loss --why 'ClickHouse was down for nine days, retention is seven'
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    if not why.strip():
        raise click.UsageError("--why is empty: give the cause of the loss")
    require_terminal(yes=yes)
    client = connect(settings)
    with clickhouse_errors():
        ranges = deleted_unread(client, settings)
    for lost in ranges:
        click.echo(
            f"partition {lost.partition}: offsets {lost.first_offset} to {lost.last_offset} ({lost.offsets:,}) were "
            "deleted by the broker before any sink read them"
        )
    if not ranges:
        click.echo("nothing is lost: the topic still has every record that is not in the ledger")
        return
    confirm("Enter them into the ledger as lost?", yes=yes)
    accept(client, settings, ranges, by=operator(), why=why)
    click.echo(f"entered as lost: {sum(lost.offsets for lost in ranges):,} offsets; the sink can be started again")
