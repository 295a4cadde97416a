"""Plays one schedule from its plan to its result."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException
from urllib3.exceptions import HTTPError

from auditstream_ops.clickhouse import connect
from auditstream_schemas.errors import AuditstreamError
from auditstream_schemas.settings import ClickHouseSettings
from tests.fault.check import CheckResult, check
from tests.fault.evidence import Evidence, gather
from tests.fault.faults import FAULTS
from tests.fault.plan import FaultPlan
from tests.fault.scene import LateError, Pause, Scene
from tests.fault.servers import Servers
from tests.support.fix_stack import delete_tenant
from tests.support.pipeline import sink_settings

DEADLINE_SECONDS = 240.0
_STOP_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class ScheduleOutcome:
    """The outcome of a schedule.

    Attributes:
        plan: Its plan.
        result: Figures, and what was wrong.
        seconds: How long it took.
        starts: Sinks started.
        disturbances: The faults that happened, in the words of the log.
        log_counts: How often each text is in the logs of the sinks.
        phases: Seconds that each phase took.
        directory: Files for examination; None if it passed.
    """

    plan: FaultPlan
    result: CheckResult
    seconds: float = 0.0
    starts: int = 0
    disturbances: list[str] = field(default_factory=list)
    log_counts: dict[str, int] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    directory: Path | None = None

    @property
    def passed(self) -> bool:
        return not self.result.faults

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        """Measure a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases[phase] = time.monotonic() - began

    def line(self) -> str:
        """The line of the terminal."""
        result = self.result
        status = "ok" if self.passed else "FAILED"
        protocol = "" if self.plan.protocol == "classic" else ", KIP-848"
        protocol += ", transactions" if self.plan.transactional else ""
        text = (
            f"seed {self.plan.seed:<5} {status:<6} {self.seconds:5.1f} s  "
            f"sent {result.sent:,}, acked {result.acked:,}, "
            f"visible {result.visible:,}, duplicates {result.duplicates:,}, dead letters {result.dead_letters:,} "
            f"({result.conflicts:,} conflicts), raw - visible {result.raw_minus_visible:,}, {self.starts} sinks  "
            f"[{' + '.join(self.plan.kinds)}{protocol}{', 3 brokers' if self.plan.brokers > 1 else ''}]"
        )
        return text if self.passed else f"{text}\n    " + "\n    ".join([*result.faults, f"files in {self.directory}"])

    def json_line(self) -> str:
        """The line of the log, as JSON."""
        figures = {name: value for name, value in asdict(self.result).items() if name not in {"details", "faults"}}
        return json.dumps(
            {
                "seed": self.plan.seed,
                "kinds": self.plan.kinds,
                "outcome": "ok" if self.passed else "FAILED",
                "faults": self.result.faults,
                "seconds": round(self.seconds, 1),
                **figures,
                "events": self.plan.events,
                "sinks": self.starts,
                "brokers": self.plan.brokers,
                "protocol": self.plan.protocol,
                "transactional": self.plan.transactional,
                "disturbances": self.disturbances,
                "log_counts": self.log_counts,
                "phases": {name: round(seconds, 1) for name, seconds in self.phases.items()},
            }
        )


def play(
    plan: FaultPlan, servers: Servers, directory: Path, *, sabotage: str = "", keep: bool = False
) -> ScheduleOutcome:
    """Play a schedule. Blocks for four minutes at most, and for the start of servers.

    Args:
        plan: Its plan.
        servers: The servers of the run.
        directory: Directory for the files of the schedule; they are deleted if it passes.
        sabotage: Key of SABOTAGES for the sinks; empty for none.
        keep: Do not delete the files.
    """
    work = directory / str(plan.seed)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    outcome = ScheduleOutcome(plan=plan, result=CheckResult())
    began = time.monotonic()
    # The start of servers does not count against the deadline.
    brokers = servers.brokers(plan.brokers)
    servers.endpoints(brokers, small_disk=False)
    servers.mend(brokers)
    scene = Scene(plan, servers, work, sabotage=sabotage, deadline=time.monotonic() + DEADLINE_SECONDS)
    evidence: Evidence | None = None
    try:
        with scene:
            try:
                with outcome.timing("storm"):
                    _storm(scene)
                with outcome.timing("drain"):
                    _drain(scene)
                with outcome.timing("aftermath"):
                    _aftermath(scene)
                with outcome.timing("stop"):
                    _stop(scene)
                with outcome.timing("check"):
                    evidence = gather(sink_settings(scene.tenant), scene.client, scene.topic_id, scene.past)
                    outcome.result = check(evidence, scene.records, scene.emitter.sent)
            except LateError:
                outcome.result.sent = scene.emitter.sent
                scene.fleet.dump()
                outcome.result.faults.append(f"not finished within {DEADLINE_SECONDS:.0f} s: {_state(scene)}")
            outcome.result.fault("sinks that ended by themselves", scene.fleet.deaths)
            outcome.disturbances = [*scene.notes, *scene.fleet.tripped()]
            outcome.log_counts = scene.fleet.log_counts()
            outcome.starts = scene.fleet.starts
    except (AuditstreamError, RuntimeError, TimeoutError) as error:
        outcome.result.faults.append(f"{type(error).__name__}: {error}")
    outcome.seconds = time.monotonic() - began
    if outcome.passed and not keep:
        shutil.rmtree(work)
    else:
        outcome.directory = work
        _write_files(work, outcome, scene, evidence)
    servers.mend(brokers)
    with suppress(AuditstreamError):
        delete_tenant(scene.tenant)
    return outcome


def _storm(scene: Scene) -> None:
    """Send the records while the faults happen."""
    storm = scene.load.storm()
    scene.records = scene.load.records
    faults = [FAULTS[kind](scene) for kind in scene.plan.kinds]
    # The first step of a fault may add trips, which must be there before the first sinks start.
    faults = [fault for fault in faults if _continues(fault)]
    scene.emitter.begin(storm, scene.plan.emit_seconds)
    try:
        while faults or not scene.emitter.is_done:
            faults = [fault for fault in faults if _continues(fault)]
            scene.tick()
    finally:
        for fault in faults:
            fault.close()
    scene.clickhouse.heal()
    scene.fleet.trips.clear()


def _aftermath(scene: Scene) -> None:
    """Send some records again after all are in the ledger."""
    if scene.plan.aftermath:
        scene.emitter.begin(scene.load.aftermath(scene.plan.aftermath), 0.1)
        while not scene.emitter.is_done:
            scene.tick()
        _drain(scene)


def _continues(fault: Pause) -> bool:
    try:
        next(fault)
    except StopIteration:
        return False
    return True


def _drain(scene: Scene) -> None:
    scene.fleet.size = max(1, scene.fleet.size)
    scene.forget_drained()
    while not scene.is_drained():
        # A sink that reached its trip late may be stopped still, and its fault has ended already.
        scene.fleet.wake()
        scene.tick()


def _stop(scene: Scene) -> None:
    """Stop every sink by SIGTERM."""
    fleet = scene.fleet
    fleet.wake()
    fleet.size = 0
    for member in fleet.members:
        fleet.dismiss(member)
    until = time.monotonic() + _STOP_SECONDS
    while fleet.members:
        scene.tick()
        if time.monotonic() > until:
            fleet.dump()
            scene.fleet.deaths += [f"{member.log.name} did not stop" for member in fleet.members]
            return


def _state(scene: Scene) -> str:
    try:
        return f"the topic ends at {scene.topic_ends()}, the ledger at {scene.ledger_ends()}"
    except (ClickHouseError, HTTPError, OSError, KafkaException) as error:
        return str(error)[:300]


def _write_files(work: Path, outcome: ScheduleOutcome, scene: Scene, evidence: Evidence | None) -> None:
    """Write the files for the examination of a failure."""
    (work / "outcome.json").write_text(outcome.json_line() + "\n", "utf-8")
    (work / "plan.txt").write_text(f"{outcome.plan}\n", "utf-8")
    (work / "details.json").write_text(json.dumps(outcome.result.details, indent=1), "utf-8")
    with (work / "records.ndjson").open("w", encoding="utf-8") as file:
        for record in scene.records:
            fields = (record.number, record.fate, record.identity, record.digest, record.is_late, record.acked)
            file.write(json.dumps([*fields, record.failures]) + "\n")
    if evidence is not None:
        (work / "evidence.txt").write_text(
            "\n".join(map(str, (evidence.ledgers, evidence.findings, evidence.dead_letters, *evidence.rows))), "utf-8"
        )
    with suppress(AuditstreamError, AttributeError):
        tenant = scene.tenant
        client = connect(ClickHouseSettings(clickhouse_url=tenant.endpoints.clickhouse_url))
        for table in ("ledger", "event_log"):
            rows = client.raw_query(f"SELECT * FROM {tenant.database}.{table} FORMAT JSONEachRow")
            (work / f"{table}.ndjson").write_bytes(rows)
        client.close()
