"""``auditstream verify``."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import connect
from auditstream_ops.ledger.audit import PartitionAccount, TopicLedger
from auditstream_ops.ledger.audit import verify as examine
from auditstream_schemas.settings import loaders
from auditstream_sink import SinkSettings

_COUNTS = ("read", "stored", "duplicates", "conflicts", "invalid", "expired", "rows")


@click.command()
@click_options(SinkSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option("--topic-id", type=click.UUID, help="Only the books of this id of the topic.")
@click.option("--complete", is_flag=True, help="A record of the topic that no sink has taken yet is a fault, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(settings: SinkSettings, *, topic_id: UUID | None, complete: bool, as_json: bool) -> None:
    """Check that every offset is accounted for.

    Holds the ledger against the event log and the topic: every offset in exactly one batch, every batch
    adding up, its rows there, and nothing committed that is not in the books. Changes nothing, and may run
    beside a sink. Exit code 1 if anything is wrong; books that are empty balance.

    \b
    Examples:
      auditstream verify
      auditstream verify --complete
      auditstream verify --json | jq '.books[].partitions[].faults[]'
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    client = connect(settings)
    found = examine(client, settings.clickhouse_database, settings, topic_id=topic_id, complete=complete)
    balanced = all(books.is_balanced for books in found)
    if as_json:
        click.echo(json.dumps(_json(settings.topic, found, balanced=balanced)))
    else:
        for books in found:
            _show(settings.topic, books)
        _conclude(found)
    sys.exit(0 if balanced else 1)


def _show(topic: str, books: TopicLedger) -> None:
    earlier = "" if books.is_current else ", an earlier topic of that name"
    click.echo(f"{topic}, id {books.topic_id}{earlier}")
    headings = ("lag", "committed", *_COUNTS)
    click.echo(f"{'partition':>9} {'offsets':>19} " + " ".join(f"{name:>10}" for name in headings))
    for account in books.partitions:
        offsets = f"{account.first_offset}..{account.last_offset}" if account.batches else "none"
        figures = [account.lag, account.committed, *(getattr(account, name) for name in _COUNTS)]
        cells = " ".join(f"{'-' if figure is None else f'{figure:,}':>10}" for figure in figures)
        click.echo(f"{account.partition:>9} {offsets:>19} {cells}")
    for account in books.partitions:
        for note in account.notes:
            click.echo(f"  note: partition {account.partition}: {note}")
    click.echo()


def _conclude(found: Sequence[TopicLedger]) -> None:
    wrong = [
        f"{books.topic_id} partition {account.partition}: {problem}"
        for books in found
        for account in books.partitions
        for problem in account.problems
    ]
    for line in wrong:
        click.echo(line)
    read, batches, lag, lost = (
        sum(getattr(account, name) or 0 for books in found for account in books.partitions)
        for name in ("read", "batches", "lag", "lost")
    )
    waiting = f", {lag:,} records wait on the topic" if lag else ""
    waiting += f"; {lost:,} offsets are LOST, as was accepted" if lost else ""
    if wrong:
        click.secho(f"the books do NOT balance{waiting}", fg="red", bold=True)
    elif not batches:
        click.echo(f"the books are empty{waiting}")
    else:
        click.secho(f"the books balance: {read:,} records in {batches:,} batches{waiting}", fg="green", bold=True)


def _json(topic: str, found: Sequence[TopicLedger], *, balanced: bool) -> dict[str, object]:
    return {
        "topic": topic,
        "balanced": balanced,
        "books": [
            {
                "topic_id": str(books.topic_id),
                "current": books.is_current,
                "partitions": [_account(account) for account in books.partitions],
            }
            for books in found
        ],
    }


def _account(account: PartitionAccount) -> dict[str, object]:
    return {**asdict(account), "lag": account.lag}
