"""``auditstream accept-loss``."""

import sys

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import connect
from auditstream_ops.dead_letters.resolver import operator
from auditstream_ops.ledger.losses import LossSettings, accept, unread_and_gone
from auditstream_schemas.settings import loaders


@click.command("accept-loss")
@click_options(LossSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option("--why", required=True, metavar="TEXT", help="What happened, for those who read the books later.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def accept_loss(settings: LossSettings, *, why: str, yes: bool) -> None:
    """Let the sink go on past offsets that the broker deleted before any sink read them.

    The sink stops at such a gap, because events may be lost: the topic's retention was shorter than an
    outage. Emit them again if you can, and lengthen the retention. This command enters the gap into the
    books as lost, with your name and reason; the sink then reads on behind it. `auditstream verify` names
    the offsets ever after. Without a gap it does nothing.

    \b
    Example:
      auditstream accept-loss --why 'ClickHouse was down for nine days, retention is seven'
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    if not why.strip():
        raise click.UsageError("--why is empty: say what happened to these records")
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("standard input is no terminal to ask on: add --yes")
    client = connect(settings)
    unread = unread_and_gone(client, settings)
    for each in unread:
        click.echo(
            f"partition {each.partition}: offsets {each.first_offset} to {each.last_offset} ({each.offsets:,}) were "
            "deleted by the broker before any sink read them"
        )
    if not unread:
        click.echo("nothing is lost: the topic still holds all that is not in the books")
        return
    if not yes and not click.confirm("Enter them into the books as lost?", err=True):
        click.echo("nothing was done", err=True)
        sys.exit(1)
    accept(client, settings, unread, by=operator(), why=why)
    click.echo(f"entered as lost: {sum(each.offsets for each in unread):,} offsets; the sink can be started again")
