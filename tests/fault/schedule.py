"""Plays one schedule from its plan to its verdict."""

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
from tests.fault.evidence import Evidence, gather
from tests.fault.faults import STRIKES
from tests.fault.plan import FaultPlan
from tests.fault.scene import LateError, Pause, Scene
from tests.fault.servers import Servers
from tests.fault.verdict import CheckResult, judge
from tests.support.pipeline import sink_settings
from tests.support.stack import delete_tenant

DEADLINE_SECONDS = 240.0
_STOP_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class ScheduleOutcome:
    """What came of a schedule.

    Attributes:
        plan: What was played.
        verdict: Figures and faults.
        seconds: How long it took.
        starts: Sinks started.
        struck: What struck.
        said: How often the sinks said what.
        phases: Seconds that its parts took.
        kept: Where there is more to examine; None if all was well.
    """

    plan: FaultPlan
    verdict: CheckResult
    seconds: float = 0.0
    starts: int = 0
    struck: list[str] = field(default_factory=list)
    said: dict[str, int] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    kept: Path | None = None

    @property
    def passed(self) -> bool:
        return not self.verdict.faults

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        """Note how long a part takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases[phase] = time.monotonic() - began

    def line(self) -> str:
        """For people."""
        found = self.verdict
        how = "ok" if self.passed else "FAILED"
        protocol = "" if self.plan.protocol == "classic" else ", KIP-848"
        protocol += ", transactions" if self.plan.transactional else ""
        text = (
            f"seed {self.plan.seed:<5} {how:<6} {self.seconds:5.1f} s  sent {found.sent:,}, acked {found.acked:,}, "
            f"visible {found.visible:,}, duplicates {found.duplicates:,}, letters {found.letters:,} "
            f"({found.conflicts:,} conflicts), raw - visible {found.raw_minus_visible:,}, {self.starts} sinks  "
            f"[{' + '.join(self.plan.kinds)}{protocol}{', 3 brokers' if self.plan.brokers > 1 else ''}]"
        )
        return text if self.passed else f"{text}\n    " + "\n    ".join([*found.faults, f"kept in {self.kept}"])

    def json_line(self) -> str:
        """For scripts."""
        figures = {name: value for name, value in asdict(self.verdict).items() if name not in {"details", "faults"}}
        return json.dumps(
            {
                "seed": self.plan.seed,
                "kinds": self.plan.kinds,
                "outcome": "ok" if self.passed else "FAILED",
                "faults": self.verdict.faults,
                "seconds": round(self.seconds, 1),
                **figures,
                "events": self.plan.events,
                "sinks": self.starts,
                "brokers": self.plan.brokers,
                "protocol": self.plan.protocol,
                "transactional": self.plan.transactional,
                "struck": self.struck,
                "said": self.said,
                "phases": {name: round(seconds, 1) for name, seconds in self.phases.items()},
            }
        )


def play(
    plan: FaultPlan, servers: Servers, directory: Path, *, sabotage: str = "", keep: bool = False
) -> ScheduleOutcome:
    """Play a schedule. Blocks, four minutes at most besides the start of servers.

    Args:
        plan: What to play.
        servers: Those of the run.
        directory: Where to keep what a failure leaves behind; gone if all is well.
        sabotage: What is broken in the sinks.
        keep: Keep everything even so.
    """
    work = directory / str(plan.seed)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    outcome = ScheduleOutcome(plan=plan, verdict=CheckResult())
    began = time.monotonic()
    # Servers that are started for this schedule have time of their own.
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
                with outcome.timing("look"):
                    evidence = gather(sink_settings(scene.tenant), scene.client, scene.topic_id, scene.past)
                    outcome.verdict = judge(evidence, scene.records, scene.emitter.sent)
            except LateError:
                outcome.verdict.sent = scene.emitter.sent
                scene.fleet.dump()
                outcome.verdict.faults.append(f"not at its end within {DEADLINE_SECONDS:.0f} s: {_state(scene)}")
            outcome.verdict.fault("sinks that ended by themselves", scene.fleet.deaths)
            outcome.struck = [*scene.notes, *scene.fleet.tripped()]
            outcome.said = scene.fleet.said()
            outcome.starts = scene.fleet.starts
    except (AuditstreamError, RuntimeError, TimeoutError) as error:
        outcome.verdict.faults.append(f"{type(error).__name__}: {error}")
    outcome.seconds = time.monotonic() - began
    if outcome.passed and not keep:
        shutil.rmtree(work)
    else:
        outcome.kept = work
        _keep(work, outcome, scene, evidence)
    servers.mend(brokers)
    with suppress(AuditstreamError):
        delete_tenant(scene.tenant)
    return outcome


def _storm(scene: Scene) -> None:
    """Send everything while all that strikes strikes."""
    storm = scene.load.storm()
    scene.records = scene.load.records
    strikes = [STRIKES[kind](scene) for kind in scene.plan.kinds]
    # What a strike puts into the first sinks must be there before they start.
    strikes = [strike for strike in strikes if _goes_on(strike)]
    scene.emitter.begin(storm, scene.plan.emit_seconds)
    try:
        while strikes or not scene.emitter.is_done:
            strikes = [strike for strike in strikes if _goes_on(strike)]
            scene.tick()
    finally:
        for strike in strikes:
            strike.close()
    scene.clickhouse.heal()
    scene.fleet.trips.clear()


def _aftermath(scene: Scene) -> None:
    """Send some once more when all was settled."""
    if scene.plan.aftermath:
        scene.emitter.begin(scene.load.aftermath(scene.plan.aftermath), 0.1)
        while not scene.emitter.is_done:
            scene.tick()
        _drain(scene)


def _goes_on(strike: Pause) -> bool:
    try:
        next(strike)
    except StopIteration:
        return False
    return True


def _drain(scene: Scene) -> None:
    scene.fleet.wanted = max(1, scene.fleet.wanted)
    scene.forget_drained()
    while not scene.is_drained():
        # One that came late to where it was to be stopped sleeps with nobody left to wake it.
        scene.fleet.wake()
        scene.tick()


def _stop(scene: Scene) -> None:
    """Have every sink finish by the book."""
    fleet = scene.fleet
    fleet.wake()
    fleet.wanted = 0
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
        return f"the topic ends at {scene.ends()}, the books at {scene.books()}"
    except (ClickHouseError, HTTPError, OSError, KafkaException) as error:
        return str(error)[:300]


def _keep(work: Path, outcome: ScheduleOutcome, scene: Scene, evidence: Evidence | None) -> None:
    """Write down what may tell why."""
    (work / "outcome.json").write_text(outcome.json_line() + "\n", "utf-8")
    (work / "plan.txt").write_text(f"{outcome.plan}\n", "utf-8")
    (work / "details.json").write_text(json.dumps(outcome.verdict.details, indent=1), "utf-8")
    with (work / "records.ndjson").open("w", encoding="utf-8") as file:
        for record in scene.records:
            kept = (record.number, record.fate, record.identity, record.digest, record.is_late, record.acked)
            file.write(json.dumps([*kept, record.failures]) + "\n")
    if evidence is not None:
        (work / "evidence.txt").write_text(
            "\n".join(map(str, (evidence.books, evidence.findings, evidence.letters, *evidence.rows))), "utf-8"
        )
    with suppress(AuditstreamError, AttributeError):
        tenant = scene.tenant
        client = connect(ClickHouseSettings(clickhouse_url=tenant.endpoints.clickhouse_url))
        for table in ("ledger", "event_log"):
            rows = client.raw_query(f"SELECT * FROM {tenant.database}.{table} FORMAT JSONEachRow")
            (work / f"{table}.ndjson").write_bytes(rows)
        client.close()
