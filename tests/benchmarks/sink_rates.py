"""How fast: the engine's limit, the sink, and what a user would write, on the same records in the same run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from auditstream_sink import SinkSettings
from tests.benchmarks.consumers import Run, run_naive, run_sink, run_sinks, time_steps
from tests.benchmarks.figures import Figures
from tests.benchmarks.limit import AS_OURS, Straight, containers, native, straight
from tests.benchmarks.load import BenchLoad, fill
from tests.benchmarks.plan import BenchPlan
from tests.benchmarks.site import Site, Topic, site


def ratio(plan: BenchPlan, figures: Figures) -> None:
    """Limit and ours alone, with re-sent ids: what tuning needs."""
    with site("local", plan.scratch) as where:
        _rates(plan, figures, where, plan.load(), "")


def sink(plan: BenchPlan, figures: Figures) -> None:
    """All candidates on the local stack, with re-sent ids and without."""
    with site("local", plan.scratch) as where:
        for resent, suffix in ((None, ""), (0.0, ".unique")):
            records = plan.load() if resent is None else plan.load(resent=resent)
            _rates(plan, figures, where, records, suffix, others=True)
            _two(plan, figures, where, records, "sink.ours.two", suffix)


def live(plan: BenchPlan, figures: Figures) -> None:
    """Limit and ours on events of the last hour, as a service sends them."""
    with site("local", plan.scratch) as where:
        _rates(plan, figures, where, plan.load(live=True), ".live")


def kafka(plan: BenchPlan, figures: Figures) -> None:
    """The sink on Apache Kafka, beside the limit of the same engine."""
    records = plan.load()
    with site("kafka", plan.scratch) as where:
        _rates(plan, figures, where, records, ".kafka")
        _two(plan, figures, where, records, "sink.ours.two", ".kafka")


def steps(plan: BenchPlan, figures: Figures) -> None:
    """Where the sink's time goes: every statement on ClickHouse, and every poll."""
    records = plan.load()
    with site("local", plan.scratch) as where, where.topic() as topic, where.database() as database:
        fill(records.bodies, where.producer(topic), topic.schema_id)
        run, step_times = time_steps(where, topic, database, len(records.bodies), flush_rows=plan.flush_rows)
    millions = run.records / 1e6
    _enter(figures, "sink.steps", "", [run])
    for step in step_times:
        note = (
            f"{step.calls} calls; a million: {step.own / millions:.2f} s of its thread, "
            f"{step.clickhouse_cpu / millions:.2f} s of the engine meanwhile"
        )
        figures.add(f"sink.steps.{step.name}", step.wall / millions, "s/million", note)


def _rates(
    plan: BenchPlan, figures: Figures, where: Site, records: BenchLoad, suffix: str, *, others: bool = False
) -> None:
    count = len(records.bodies)
    with where.topic() as topic:
        fill(records.bodies, where.producer(topic), topic.schema_id)
        files = containers(where, topic, count, flush_rows=plan.flush_rows, flush_bytes=SinkSettings().flush_bytes)
        natives = native(where, files) if others else []
        limits, defaults, ours, parsed = [], [], [], []
        for number in range(plan.rounds):
            limits.append(_straight(where, files, records, AS_OURS))
            ours.append(_ours(plan, where, topic, records))
            defaults.append(_straight(where, files, records, {}))
            if natives:
                parsed.append(_straight(where, natives, records, AS_OURS))
            figures.progress(
                f"round {number + 1} of {plan.rounds}: limit {limits[-1].seconds:.1f} s, ours {ours[-1].seconds:.1f} s"
            )
        for path in (*files, *natives):
            path.unlink()
        figures.add(f"sink.limit{suffix}", count / _seconds(limits), "records/s", "optimize_on_insert = 0, as ours")
        figures.add(f"sink.limit.cpu{suffix}", _cpu(limits, count), "s/million", "of the engine")
        figures.add(f"sink.limit.default{suffix}", count / _seconds(defaults), "records/s", "the engine's defaults")
        if parsed:
            figures.add(f"sink.native{suffix}", count / _seconds(parsed), "records/s", "the same rows, parsed already")
        _enter(figures, "sink.ours", suffix, ours)
        figures.ratio(f"sink.ours.of_limit{suffix}", f"sink.ours.steady{suffix}", f"sink.limit{suffix}")
        figures.ratio(f"sink.ours.of_limit.whole{suffix}", f"sink.ours{suffix}", f"sink.limit{suffix}")
        figures.ratio(f"sink.ours.of_limit.default{suffix}", f"sink.ours.steady{suffix}", f"sink.limit.default{suffix}")
        if not others:
            return
        candidates = {"sink.naive": "rows", "sink.naive.columns": "columns"}
        if records.events == count:
            # It looks no id up: without re-sent ones it does the very same, and takes two minutes.
            del candidates["sink.naive.columns"]
        for name, style in candidates.items():
            with where.database() as database:
                run = run_naive(where, topic, database, count, style=style, batch_rows=plan.flush_rows)
            _enter(figures, name, suffix, [run])
        figures.ratio(f"sink.ours.of_naive{suffix}", f"sink.ours{suffix}", f"sink.naive{suffix}")
        figures.ratio(f"sink.ours.of_naive.columns{suffix}", f"sink.ours{suffix}", f"sink.naive.columns{suffix}")


def _straight(where: Site, files: Sequence[Path], records: BenchLoad, settings: Mapping[str, object]) -> Straight:
    with where.database() as database:
        return straight(where, database, files, records.events, settings)


def _ours(plan: BenchPlan, where: Site, topic: Topic, records: BenchLoad) -> Run:
    with where.database() as database:
        return run_sink(
            *(where, topic, database, len(records.bodies)), events=records.events, flush_rows=plan.flush_rows
        )


def _two(plan: BenchPlan, figures: Figures, where: Site, records: BenchLoad, name: str, suffix: str) -> None:
    with where.database() as database:
        run = run_sinks(
            *(where, records.bodies, database), events=records.events, processes=2, flush_rows=plan.flush_rows
        )
    _enter(figures, name, suffix, [run])


def _enter(figures: Figures, name: str, suffix: str, runs: Sequence[Run]) -> None:
    """Enter the median run: rate, steady rate, processor time; and the worst memory."""
    run = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    millions = run.records / 1e6
    figures.add(f"{name}{suffix}", run.rate, "records/s", "first fetch to last commit")
    if run.steady:
        steady = median(run.steady for run in runs)
        figures.add(f"{name}.steady{suffix}", steady, "records/s", "first commit to last commit")
    figures.add(f"{name}.cpu{suffix}", run.cpu / millions, "s/million", "of its own processes")
    figures.add(f"{name}.clickhouse_cpu{suffix}", run.clickhouse_cpu / millions, "s/million", "of the engine meanwhile")
    figures.add(f"{name}.broker_cpu{suffix}", run.broker_cpu / millions, "s/million", "of the broker meanwhile")
    memory = max(run.peak for run in runs) / 1e6
    figures.add(f"{name}.memory{suffix}", memory, "MB", "peak of one process, resident")
    if name == "sink.ours" and not suffix:
        figures.add("sink.memory", memory, "MB", "the same, by its short name")


def _seconds(runs: Sequence[Straight]) -> float:
    return median(run.seconds for run in runs)


def _cpu(runs: Sequence[Straight], count: int) -> float:
    return median(run.clickhouse_cpu for run in runs) / (count / 1e6)
