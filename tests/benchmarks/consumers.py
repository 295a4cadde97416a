"""Candidates that read a topic: the sink, and a simple consumer."""

import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from auditstream_schemas.errors import OperationError
from tests.benchmarks.child import Child, Report
from tests.benchmarks.load import fill
from tests.benchmarks.site import PARTITIONS, Site, Topic, cpu_seconds

_JOIN_SECONDS = 90.0
_BATCH_SECONDS = 300.0
_STOPPED_SESSION_MS = 20_000
"""Long enough to fill a topic while the sinks are stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The measurements of one run of a candidate on a topic.

    Attributes:
        records: Read off the topic.
        seconds: From its first fetch to its last commit.
        steady: Records a second between the first commit and the last, when fetch and write overlap; 0 where
            there are fewer than three batches.
        cpu: Processor seconds of all its processes in that time.
        clickhouse_cpu: The same of the engine.
        broker_cpu: The same of the broker.
        peak: The largest resident memory of one of its processes, bytes.
        steps: Seconds of each step of the sink, by its own metric; of all processes together.
    """

    records: int
    seconds: float
    steady: float
    cpu: float
    clickhouse_cpu: float
    broker_cpu: float
    peak: int
    steps: dict[str, float]

    @property
    def rate(self) -> float:
        """Records a second over all."""
        return self.records / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The time of one method of the sink in a whole run.

    Attributes:
        name: Class and method.
        calls: How often it was called.
        wall: Seconds that passed.
        own: Processor seconds of the calling thread.
        clickhouse_cpu: Processor seconds of the engine meanwhile, merges included.
    """

    name: str
    calls: int
    wall: float
    own: float
    clickhouse_cpu: float


class _Servers:
    """Processor time of engine and broker between two moments."""

    def __init__(self, site: Site) -> None:
        self._pids = (site.clickhouse_pid, site.broker_pid)
        self._before = [cpu_seconds(pid) for pid in self._pids]

    def since(self) -> tuple[float, float]:
        clickhouse, broker = (cpu_seconds(pid) - before for pid, before in zip(self._pids, self._before, strict=True))
        return clickhouse, broker


def run_sink(site: Site, topic: Topic, database: str, records: int, *, events: int, **settings: object) -> Run:
    """One sink on a topic that was filled beforehand.

    Raises:
        OperationError: It read or stored another number of records than there are.
    """
    env = {**site.env(topic, database, **settings), **report_partition_ends(site)}
    with Child("tests.benchmarks.sink_process", [str(PARTITIONS)], env) as child:
        run, ends = _until_read(site, [child], records)
    if ends[0].more["stored"] != events:
        raise OperationError(f"the sink stored {ends[0].more['stored']} of {events} events")
    return run


def time_steps(site: Site, topic: Topic, database: str, records: int, **settings: object) -> tuple[Run, list[Step]]:
    """One sink with clocks in it."""
    env = {**site.env(topic, database, **settings), **report_partition_ends(site)}
    with Child("tests.benchmarks.steps_process", [str(PARTITIONS), str(site.clickhouse_pid)], env) as child:
        steps: list[Step] = []
        run, _ends = _until_read(site, [child], records, steps=steps)
    return run, steps


def run_sinks(
    site: Site, bodies: list[bytes], database: str, *, events: int, processes: int, **settings: object
) -> Run:
    """Several sinks on a topic that is filled while they stand still, each with its partitions."""
    with site.topic() as topic, ExitStack() as parts:
        env = site.env(topic, database, **{"session_timeout_ms": _STOPPED_SESSION_MS, **settings})
        children = []
        for _number in range(processes):
            child = parts.enter_context(Child("tests.benchmarks.sink_process", ["0"], env))
            # The next sink joins once this one has partitions, so that no partition moves afterwards.
            child.wait_for("reading", _JOIN_SECONDS)
            children.append(child)
        for child in children:
            child.signal(signal.SIGSTOP)
        fill(bodies, site.producer(topic), topic.schema_id)
        run, ends = _until_read(site, children, len(bodies), stopped=True)
    stored = sum(end.more["stored"] for end in ends)
    if stored != events:
        raise OperationError(f"the sinks stored {stored} of {events} events")
    return run


def run_naive(site: Site, topic: Topic, database: str, records: int, *, style: str, batch_rows: int) -> Run:
    """The naive consumer on a topic that was filled beforehand."""
    arguments = [style, str(records), str(batch_rows)]
    with Child("tests.benchmarks.naive_process", arguments, site.env(topic, database)) as child:
        # It knows how many records there are, and ends by itself.
        run, _ends = _until_read(site, [child], records, stop=False)
    return run


def report_partition_ends(site: Site) -> dict[str, str]:
    """Makes the Kafka client report the end of a partition, by which `sink_process` stops."""
    path = site.scratch / "eof.properties"
    path.write_text("enable.partition.eof=true\n", "utf-8")
    return {"AUDITSTREAM_KAFKA_CONFIG_FILE": str(path)}


def _until_read(
    site: Site,
    children: Sequence[Child],
    records: int,
    *,
    stopped: bool = False,
    stop: bool = True,
    steps: list[Step] | None = None,
) -> tuple[Run, list[Report]]:
    if stopped:
        started, cpu = time.monotonic(), 0.0
        servers = _Servers(site)
        for child in children:
            child.signal(signal.SIGCONT)
    else:
        reading = children[0].wait_for("reading", _JOIN_SECONDS)
        servers = _Servers(site)
        started, cpu = reading.at, -reading.cpu
    commits: list[Report] = []
    latest: dict[int, Report] = {}
    left = records
    while left > 0:
        for child in children:
            said = child.poll(0.02 if len(children) > 1 else _BATCH_SECONDS)
            if said is not None and said.kind == "commit":
                commits.append(said)
                latest[child.pid] = said
                left -= said.more["read"]
    clickhouse_cpu, broker_cpu = servers.since()
    if left < 0:
        raise OperationError(f"{-left} records were read twice")
    if stop:
        for child in children:
            child.signal(signal.SIGTERM)
    ends = [_end(child, [] if steps is None else steps) for child in children]
    commits.sort(key=lambda said: said.at)
    run = Run(
        records=records,
        seconds=commits[-1].at - started,
        steady=_steady(commits),
        cpu=cpu + sum(said.cpu for said in latest.values()),
        clickhouse_cpu=clickhouse_cpu,
        broker_cpu=broker_cpu,
        peak=max(end.more["peak"] for end in ends),
        steps=_added(end.more.get("steps", {}) for end in ends),
    )
    return run, ends


def _end(child: Child, steps: list[Step]) -> Report:
    while (said := child.next(_JOIN_SECONDS)).kind != "end":
        if said.kind == "step":
            steps.append(Step(**said.more))
    return said


def _added(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            sums[name] = sums.get(name, 0.0) + seconds
    return sums


def _steady(commits: Sequence[Report]) -> float:
    if len(commits) < 3:
        return 0.0
    return float(sum(said.more["read"] for said in commits[1:]) / (commits[-1].at - commits[0].at))
