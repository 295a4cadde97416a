"""``auditstream verify``."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import connect
from auditstream_ops.ledger import verify as ledger_checks
from auditstream_ops.ledger.verify import TopicCheck
from auditstream_schemas.settings import loaders
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
    client = connect(settings)
    topics = ledger_checks.verify(client, settings.clickhouse_database, settings, topic_id=topic_id, complete=complete)
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
