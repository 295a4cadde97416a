"""``auditstream sink``."""

import dataclasses
import json
import signal
import sys
from collections.abc import Sequence

import click
import prometheus_client
from tqdm import tqdm
from typed_settings import click_options

from auditstream_schemas.settings import loaders
from auditstream_sink import Sink, SinkSettings
from auditstream_storage import LedgerLine, LedgerTotals


@click.command()
@click_options(SinkSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option(
    "--until-idle",
    type=float,
    metavar="SECONDS",
    help="Stop when nothing has arrived for so long; otherwise run until SIGTERM or Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the totals as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
def sink(settings: SinkSettings, *, until_idle: float | None, as_json: bool, quiet: bool) -> None:
    """Move events from Kafka into ClickHouse.

    Second deliveries of an id are dropped. Records that cannot be stored go to the dead-letter topic with
    their reason: see `auditstream dlq`. Any number of sinks may share a group. On SIGTERM or Ctrl-C the
    batch in hand is finished; after a crash, even SIGKILL, the next sink reads on where the books end.
    While ClickHouse, the registry or the broker is away it waits, without end and without loss.
    """
    with tqdm(unit=" records", unit_scale=True, desc="sink", disable=quiet or not sys.stderr.isatty()) as bar:

        def show(lines: Sequence[LedgerLine]) -> None:
            bar.update(sum(line.read for line in lines))

        # A second series beside each counter, which says when the process began.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        mover = Sink(settings, on_lines=show)
        if mover.health_url:
            click.echo(f"health and metrics at {mover.health_url}", err=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: mover.stop())
        totals = mover.run(until_idle=until_idle)
    _print(totals, as_json=as_json)


def _print(totals: LedgerTotals, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(totals)))
        return
    click.echo(
        f"read {totals.read:,} = stored {totals.stored:,} + duplicates {totals.duplicates:,} "
        f"+ conflicts {totals.conflicts:,} + invalid {totals.invalid:,} + expired {totals.expired:,}"
    )
