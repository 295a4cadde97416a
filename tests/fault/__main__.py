"""``python -m tests.fault``: seeded schedules of faults against real servers; no event may be lost or visible twice."""

import logging
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from tests.fault.plan import DISK_FULL, KINDS, SECOND_DELIVERIES, FaultPlan, draw
from tests.fault.sabotage import SABOTAGES
from tests.fault.schedule import ScheduleOutcome, play
from tests.fault.servers import Servers, small_disk_fault
from tests.support.kafka_cluster import missing_tools

_BUILD = Path("build")


@click.command()
@click.option("--schedules", default=200, show_default=True, help="Number of schedules.")
@click.option(
    "--seed", default=1, show_default=True, help="Seed of the first schedule; each further one has the next number."
)
@click.option("--only", type=click.Choice(KINDS), help="First fault of every schedule.")
@click.option("--events", default=25_000, show_default=True, help="Valid events of a schedule, at least.")
@click.option("--log", type=click.Path(path_type=Path), default=_BUILD / "faults.jsonl", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the lines of the log, one JSON object for each schedule.")
@click.option(
    "--sabotage", type=click.Choice(sorted(SABOTAGES)), help="Break the sinks in this way; every schedule should fail."
)
@click.option(
    "--keep", is_flag=True, help="Keep the files of schedules that pass too, among them the logs of the sinks."
)
@click.option(
    "--self-check", is_flag=True, help="Afterwards check that the suite detects each kind of sabotage, on a few events."
)
def main(
    *,
    schedules: int,
    seed: int,
    only: str | None,
    events: int,
    log: Path,
    as_json: bool,
    sabotage: str | None,
    keep: bool,
    self_check: bool,
) -> None:
    """Run schedules of faults; exit code 1 if one failed."""
    if missing := missing_tools():
        click.echo(f"the fault suite needs {', '.join(missing)}", err=True)
        sys.exit(2)
    # Warnings about killed brokers and servers are expected here.
    for name in ("auditstream", "clickhouse_connect", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # SIGTERM stops the servers as SIGINT does. A run in the background of a script ignores SIGINT otherwise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    plans = sorted(
        (draw(seed + number, events=events, only=only or "") for number in range(schedules)),
        key=lambda plan: plan.order,
    )
    plans, skipped = _playable(plans)
    outcomes: list[ScheduleOutcome] = []
    are_detected = True
    interrupted = False
    log.parent.mkdir(parents=True, exist_ok=True)
    directory_of_failures = log.parent / "faults"
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="auditstream-faults-")))
        lines = stack.enter_context(log.open("w", encoding="utf-8"))
        try:
            servers = stack.enter_context(Servers(directory))
            for plan in plans:
                outcome = play(plan, servers, directory_of_failures, sabotage=sabotage or "", keep=keep)
                outcomes.append(outcome)
                click.echo(outcome.json_line() if as_json else outcome.line())
                lines.write(outcome.json_line() + "\n")
                lines.flush()
            if self_check:
                are_detected = _check_sabotages(servers, directory, seed)
        except KeyboardInterrupt:
            interrupted = True
            click.echo("interrupted", err=True)
    passed = sum(outcome.passed for outcome in outcomes)
    failed = len(outcomes) - passed
    more = f", {skipped} skipped" if skipped else ""
    click.echo(f"faults: {passed} passed, {failed} failed{more}")
    sys.exit(130 if interrupted else 1 if failed or not are_detected else 0)


def _playable(plans: list[FaultPlan]) -> tuple[list[FaultPlan], int]:
    """The schedules that this machine can play, and the number of those that it cannot."""
    if not any(DISK_FULL in plan.kinds for plan in plans):
        return plans, 0
    fault = small_disk_fault()
    if fault is None:
        return plans, 0
    playable = [plan for plan in plans if DISK_FULL not in plan.kinds]
    click.echo(f"skipped {len(plans) - len(playable)} of {DISK_FULL}: no small disk can be mounted: {fault}")
    return playable, len(plans) - len(playable)


def _check_sabotages(servers: Servers, directory: Path, seed: int) -> bool:
    """Whether the suite detects each sabotage."""
    undetected = []
    for name in SABOTAGES:
        plan = replace(
            draw(seed, events=800, only=SECOND_DELIVERIES),
            kinds=(SECOND_DELIVERIES,),
            partitions=2,
            brokers=1,
            sinks=1,
            flush_rows=300,
            transactional=False,
            emit_seconds=0.2,
            aftermath=0.0,
        )
        outcome = play(plan, servers, directory / "sabotaged", sabotage=name)
        if outcome.passed:
            undetected.append(name)
        else:
            click.echo(f"sabotage detected: {name}: {outcome.result.faults[0]}")
    if undetected:
        click.echo(f"sabotage that the suite did NOT detect: {', '.join(undetected)}", err=True)
    return not undetected


if __name__ == "__main__":
    main()
