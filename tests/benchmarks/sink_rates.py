"""How fast: the engine's limit, the sink, and what a user would write, on the same records in the same run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from auditstream_sink import SinkSettings
from tests.benchmarks.consumers import Run, run_naive, run_sink, run_sinks, time_steps
from tests.benchmarks.figures import Figures
from tests.benchmarks.limit import AS_OURS, Straight, containers, native, straight
from tests.benchmarks.load import Load, fill, load
from tests.benchmarks.site import Site, Topic, site

RESENT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run of the benchmarks was asked for.

    Attributes:
        events: Distinct events.
        rounds: How often a cheap candidate takes its turn; the median counts.
        flush_rows: Records of a batch, for every candidate that has batches.
        kept: Directory of the events.
        scratch: Directory for everything else; removed at the end.
    """

    events: int
    rounds: int
    flush_rows: int
    kept: Path
    scratch: Path

    def load(self, resent: float) -> Load:
        """The records."""
        return load(self.kept, events=self.events, resent=resent)


def flush_rows(events: int) -> int:
    """The sink's default, or a quarter of a small load: a single batch would show no overlap."""
    return min(SinkSettings().flush_rows, max(1000, events // 4))


def ratio(plan: Plan, figures: Figures) -> None:
    """Limit and ours alone: what tuning needs."""
    with site("local", plan.scratch) as where:
        _rates(plan, figures, where, plan.load(RESENT), "")


def steps(plan: Plan, figures: Figures) -> None:
    """Where the sink's time goes: every call of its warehouse, and its loop."""
    records = plan.load(RESENT)
    with site("local", plan.scratch) as where, where.topic() as topic, where.database() as database:
        fill(records.bodies, where.producer(topic), topic.schema_id)
        run, found = time_steps(where, topic, database, len(records.bodies), flush_rows=plan.flush_rows)
    millions = run.records / 1e6
    _enter(figures, "sink.steps", [run])
    for step in found:
        note = (
            f"{step.calls} calls; a million: {step.own / millions:.2f} s of its thread, "
            f"{step.clickhouse_cpu / millions:.2f} s of the engine meanwhile"
        )
        figures.add(f"sink.steps.{step.name}", step.wall / millions, "s/million", note)


def sink(plan: Plan, figures: Figures) -> None:
    """All candidates on the local stack, with re-sent ids and without."""
    with site("local", plan.scratch) as where:
        for resent, suffix in ((RESENT, ""), (0.0, ".unique")):
            records = plan.load(resent)
            _rates(plan, figures, where, records, suffix, others=True)
            with where.database() as database:
                two = run_sinks(
                    where, records.bodies, database, events=records.events, processes=2, flush_rows=plan.flush_rows
                )
            _enter(figures, f"sink.ours.two{suffix}", [two])


def kafka(plan: Plan, figures: Figures) -> None:
    """The sink on Apache Kafka."""
    records = plan.load(RESENT)
    with site("kafka", plan.scratch) as where:
        with where.topic() as topic:
            fill(records.bodies, where.producer(topic), topic.schema_id)
            runs = [_ours(plan, where, topic, records) for _round in range(plan.rounds)]
        _enter(figures, "sink.ours.kafka", runs)
        with where.database() as database:
            two = run_sinks(
                where, records.bodies, database, events=records.events, processes=2, flush_rows=plan.flush_rows
            )
        _enter(figures, "sink.ours.kafka.two", [two])


def _rates(plan: Plan, figures: Figures, where: Site, records: Load, suffix: str, *, others: bool = False) -> None:
    count = len(records.bodies)
    with where.topic() as topic:
        fill(records.bodies, where.producer(topic), topic.schema_id)
        files = containers(where, topic, count, flush_rows=plan.flush_rows, flush_bytes=SinkSettings().flush_bytes)
        natives = native(where, files) if others else []
        limits, defaults, ours, parsed = [], [], [], []
        for _round in range(plan.rounds):
            limits.append(_straight(where, files, records, AS_OURS))
            ours.append(_ours(plan, where, topic, records))
            defaults.append(_straight(where, files, records, {}))
            if natives:
                parsed.append(_straight(where, natives, records, AS_OURS))
        figures.add(f"sink.limit{suffix}", count / _seconds(limits), "records/s", "optimize_on_insert = 0, as ours")
        figures.add(f"sink.limit.default{suffix}", count / _seconds(defaults), "records/s", "the engine's defaults")
        figures.add(f"sink.limit.clickhouse_cpu{suffix}", _cpu(limits, count), "s/million")
        _enter(figures, f"sink.ours{suffix}", ours)
        figures.ratio(f"sink.ours.of_limit{suffix}", f"sink.ours.steady{suffix}", f"sink.limit{suffix}")
        figures.ratio(f"sink.ours.of_limit.whole{suffix}", f"sink.ours{suffix}", f"sink.limit{suffix}")
        figures.ratio(f"sink.ours.of_limit.default{suffix}", f"sink.ours.steady{suffix}", f"sink.limit.default{suffix}")
        if not others:
            return
        figures.add(f"sink.native{suffix}", count / _seconds(parsed), "records/s", "the same rows, parsed already")
        for path in natives:
            path.unlink()
        for style, name in (("rows", "sink.naive"), ("columns", "sink.naive.columns")):
            with where.database() as database:
                run = run_naive(where, topic, database, count, style=style, batch_rows=plan.flush_rows)
            _enter(figures, f"{name}{suffix}", [run])
        figures.ratio(f"sink.ours.of_naive{suffix}", f"sink.ours{suffix}", f"sink.naive{suffix}")
        figures.ratio(f"sink.ours.of_naive.columns{suffix}", f"sink.ours{suffix}", f"sink.naive.columns{suffix}")


def _straight(where: Site, files: Sequence[Path], records: Load, settings: Mapping[str, object]) -> Straight:
    with where.database() as database:
        return straight(where, database, files, records.events, settings)


def _ours(plan: Plan, where: Site, topic: Topic, records: Load) -> Run:
    with where.database() as database:
        return run_sink(where, topic, database, len(records.bodies), events=records.events, flush_rows=plan.flush_rows)


def _enter(figures: Figures, name: str, runs: Sequence[Run]) -> None:
    """Enter the median run: rate, steady rate, processor time and memory."""
    run = sorted(runs, key=lambda each: each.seconds)[len(runs) // 2]
    stem, _, unique = name.partition(".unique")
    suffix = ".unique" if unique or name.endswith(".unique") else ""
    millions = run.records / 1e6
    figures.add(name, run.rate, "records/s", "first fetch to last commit")
    if run.steady:
        steady = median(each.steady for each in runs)
        figures.add(f"{stem}.steady{suffix}", steady, "records/s", "first commit to last commit")
    figures.add(f"{stem}.cpu{suffix}", run.cpu / millions, "s/million", "its processes")
    figures.add(f"{stem}.clickhouse_cpu{suffix}", run.clickhouse_cpu / millions, "s/million")
    figures.add(f"{stem}.broker_cpu{suffix}", run.broker_cpu / millions, "s/million")
    figures.add(f"{stem}.memory{suffix}", max(each.peak for each in runs) / 1e6, "MB", "peak of one process")


def _seconds(runs: Sequence[Straight]) -> float:
    return median(run.seconds for run in runs)


def _cpu(runs: Sequence[Straight], count: int) -> float:
    return median(run.clickhouse_cpu for run in runs) / (count / 1e6)
