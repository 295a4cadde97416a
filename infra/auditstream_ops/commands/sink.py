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
from auditstream_storage import LedgerLine


@click.command()
@click_options(SinkSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option(
    "--until-idle",
    type=float,
    metavar="SECONDS",
    help="Stop when no record has arrived for this time. Without it, run until SIGTERM or Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the totals as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
def sink(settings: SinkSettings, *, until_idle: float | None, as_json: bool, quiet: bool) -> None:
    """Move events from Kafka into ClickHouse.

    Second deliveries of an id are dropped. Records that cannot be stored go to the dead-letter topic with
    their reason: see `auditstream dlq`. Any number of sinks may share a group. On SIGTERM or Ctrl-C the sink
    writes the records that it has read; after a crash, even SIGKILL, the next sink reads on from the end of the
    ledger. While ClickHouse, the registry or the broker is away the sink waits; it has no time limit and loses
    nothing.
    """
    with tqdm(unit=" records", unit_scale=True, desc="sink", disable=quiet or not sys.stderr.isatty()) as bar:

        def show_progress(lines: Sequence[LedgerLine]) -> None:
            bar.update(sum(line.read for line in lines))

        # Without this, prometheus_client adds to each counter a series with the start time of the process.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        event_sink = Sink(settings, on_lines=show_progress)
        if event_sink.health_url:
            click.echo(f"health and metrics at {event_sink.health_url}", err=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: event_sink.stop())
        totals = event_sink.run(until_idle=until_idle)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(totals)))
        return
    click.echo(
        f"read {totals.read:,} = stored {totals.stored:,} + duplicates {totals.duplicates:,} "
        f"+ conflicts {totals.conflicts:,} + invalid {totals.invalid:,} + expired {totals.expired:,}"
    )
