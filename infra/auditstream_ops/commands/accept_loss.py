"""``auditstream accept-loss``."""

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import connect
from auditstream_ops.commands.confirmation import confirm, operator, require_terminal
from auditstream_ops.ledger.losses import LossSettings, accept, deleted_unread
from auditstream_schemas.settings import loaders


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
    ranges = deleted_unread(client, settings)
    for lost in ranges:
        click.echo(
            f"partition {lost.partition}: offsets {lost.first_offset} to {lost.last_offset} ({lost.offsets:,}) were "
            "deleted by the broker before any sink read them"
        )
    if not ranges:
        click.echo("nothing is lost: the topic still holds every record that is not in the ledger")
        return
    confirm("Enter them into the ledger as lost?", yes=yes)
    accept(client, settings, ranges, by=operator(), why=why)
    click.echo(f"entered as lost: {sum(lost.offsets for lost in ranges):,} offsets; the sink can be started again")
