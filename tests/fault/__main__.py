"""``python -m tests.fault``: seeded schedules of faults against real servers; the sink must come out right."""

import logging
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from auditstream_local.kafka import missing_tools
from tests.fault.plan import DISK_FULL, KINDS, SECOND_DELIVERIES, FaultPlan, draw
from tests.fault.sabotage import SABOTAGES
from tests.fault.schedule import ScheduleOutcome, play
from tests.fault.servers import Servers, small_disk_fault

_BUILD = Path("build")


@click.command()
@click.option("--schedules", default=200, show_default=True, help="How many.")
@click.option("--seed", default=1, show_default=True, help="Of the first; each next one's is one more.")
@click.option("--only", type=click.Choice(KINDS), help="Lead every schedule with this fault.")
@click.option("--events", default=25_000, show_default=True, help="Sound events of a schedule, at least.")
@click.option("--log", type=click.Path(path_type=Path), default=_BUILD / "faults.jsonl", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the log's lines instead of those for people.")
@click.option("--sabotage", type=click.Choice(sorted(SABOTAGES)), help="Break the sinks: every schedule should fail.")
@click.option("--keep", is_flag=True, help="Keep sinks' logs and all else of schedules that pass, too.")
@click.option("--self-check", is_flag=True, help="Then have each kind of broken sink found out, on a few events.")
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
    # What brokers and ClickHouse say when they are killed is no news here.
    for name in ("auditstream", "clickhouse_connect", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # A terminated run stops its servers as an interrupted one does; also one in the background of a script.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    plans = sorted(
        (draw(seed + number, events=events, only=only or "") for number in range(schedules)),
        key=lambda plan: plan.order,
    )
    plans, skipped = _playable(plans)
    outcomes: list[ScheduleOutcome] = []
    caught = True
    interrupted = False
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = log.parent / "faults"
    with ExitStack() as parts:
        directory = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="auditstream-faults-")))
        lines = parts.enter_context(log.open("w", encoding="utf-8"))
        try:
            servers = parts.enter_context(Servers(directory))
            for plan in plans:
                outcome = play(plan, servers, kept, sabotage=sabotage or "", keep=keep)
                outcomes.append(outcome)
                click.echo(outcome.json_line() if as_json else outcome.line())
                lines.write(outcome.json_line() + "\n")
                lines.flush()
            if self_check:
                caught = _check_itself(servers, directory, seed)
        except KeyboardInterrupt:
            interrupted = True
            click.echo("interrupted", err=True)
    passed = sum(outcome.passed for outcome in outcomes)
    failed = len(outcomes) - passed
    more = f", {skipped} skipped" if skipped else ""
    click.echo(f"faults: {passed} passed, {failed} failed{more}")
    sys.exit(130 if interrupted else 1 if failed or not caught else 0)


def _playable(plans: list[FaultPlan]) -> tuple[list[FaultPlan], int]:
    """The schedules that this machine can play, and how many it cannot."""
    if not any(DISK_FULL in plan.kinds for plan in plans):
        return plans, 0
    fault = small_disk_fault()
    if fault is None:
        return plans, 0
    left = [plan for plan in plans if DISK_FULL not in plan.kinds]
    click.echo(f"skipped {len(plans) - len(left)} of {DISK_FULL}: no small disk can be mounted: {fault}")
    return left, len(plans) - len(left)


def _check_itself(servers: Servers, directory: Path, seed: int) -> bool:
    """Whether the suite sees what broken sinks do."""
    missed = []
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
            missed.append(name)
        else:
            click.echo(f"broken sinks found out: {name}: {outcome.verdict.faults[0]}")
    if missed:
        click.echo(f"broken sinks that the suite did NOT find out: {', '.join(missed)}", err=True)
    return not missed


if __name__ == "__main__":
    main()
