"""How the sink is: whether its loop turns, whether it reads, and what it waits for."""

import logging
import threading
from dataclasses import dataclass

from auditstream_schemas.errors import RegistryError
from auditstream_sink.clock import Clock
from auditstream_sink.dead_letters import DeadLettersUndeliveredError
from auditstream_sink.metrics import Metrics, Part, Rebalance
from auditstream_sink.positions import BrokerAwayError
from auditstream_sink.settings import SinkSettings

_MAX_POLL_MS = 300_000
"""librdkafka's default of ``max.poll.interval.ms``: a consumer that does not poll for so long leaves its group."""

_logger = logging.getLogger("auditstream.sink")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """An answer of /healthz or /readyz.

    Attributes:
        well: Whether all is as it should be.
        reasons: A sentence for each thing that is not.
        waits_for: Parts that the sink waits for, with seconds since.
    """

    well: bool
    reasons: tuple[str, ...]
    waits_for: dict[Part, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wait:
    part: Part
    since: float


class Health:
    """What the loop and the worker tell of themselves. Safe to share between threads; blocks on nothing.

    Args:
        settings: Name the broker, and how long the loop may go without polling.
        metrics: Where the same is shown as figures.
        clock: For ages.
    """

    def __init__(self, settings: SinkSettings, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._names: dict[Part, str] = {
            "clickhouse": "ClickHouse",
            "registry": "the schema registry",
            "broker": f"the broker at {settings.kafka_bootstrap_servers}",
        }
        self._poll_within = int(settings.librdkafka().get("max.poll.interval.ms", _MAX_POLL_MS)) / 1000
        self._lock = threading.Lock()
        self._polled = clock.monotonic()
        self._joined = False
        self._unpositioned = 0
        self._waits: dict[str, _Wait] = {}

    def polled(self, *, partitions: int, unpositioned: int) -> None:
        """The loop asked for records; ``unpositioned`` of its partitions it cannot read yet."""
        with self._lock:
            self._polled = self._clock.monotonic()
            self._unpositioned = unpositioned
        self._metrics.polled(partitions=partitions, unpositioned=unpositioned)

    @property
    def is_member(self) -> bool:
        """Whether the group has taken this sink in."""
        return self._joined

    def joined(self) -> None:
        """The group has taken this sink in, and has no partition for it so far."""
        with self._lock:
            self._joined = True

    def rebalanced(self, event: Rebalance, *, unpositioned: int) -> None:
        """The group gave or took partitions; a sink that is given none is a member, too."""
        with self._lock:
            self._joined = event != "lost"
            self._unpositioned = unpositioned
        self._metrics.rebalanced(event)

    def wait(self, waiter: str, part: Part, why: object) -> None:
        """Something failed and is tried again until it succeeds; said once in the log.

        Args:
            waiter: Who waits; each may wait for one part at a time.
            part: Who failed.
            why: What it said, for the log alone: not shown on the health port.
        """
        with self._lock:
            is_known = any(wait.part == part for wait in self._waits.values())
            is_new = waiter not in self._waits or self._waits[waiter].part != part
            left = self._leave(waiter) if is_new else None
            if is_new:
                self._waits[waiter] = _Wait(part=part, since=self._clock.monotonic())
        self._metrics.failed(part)
        self._say_over(left)
        if not is_known:
            self._metrics.waits(part, yes=True)
            _logger.warning("waiting for %s, nothing is lost: %s", self._names[part], why)

    def go_on(self, waiter: str) -> None:
        """What was waited for is there, or is not needed any more; said once in the log."""
        if waiter not in self._waits:
            return
        with self._lock:
            left = self._leave(waiter)
        self._say_over(left)

    def is_waiting(self, waiter: str) -> bool:
        """Whether this one waits."""
        return waiter in self._waits

    def alive(self) -> Condition:
        """Whether the loop turns. While it waits for a part, it does."""
        with self._lock:
            silent = self._clock.monotonic() - self._polled
        if silent <= self._poll_within:
            return Condition(well=True, reasons=(), waits_for={})
        reason = (
            f"the loop has not polled for {silent:.0f} s, and leaves its group after {self._poll_within:.0f} s: "
            "restart the sink"
        )
        return Condition(well=False, reasons=(reason,), waits_for={})

    def ready(self) -> Condition:
        """Whether records that arrive now are read and stored."""
        with self._lock:
            now = self._clock.monotonic()
            waits_for: dict[Part, float] = {}
            for wait in self._waits.values():
                waits_for[wait.part] = round(max(now - wait.since, waits_for.get(wait.part, 0.0)), 1)
            joined, unpositioned = self._joined, self._unpositioned
        reasons = [f"waiting for {self._names[part]} for {age} s" for part, age in waits_for.items()]
        if not joined:
            reasons.append("not in its group yet")
        if unpositioned:
            reasons.append(f"where to read on is not known yet for {unpositioned} partitions")
        return Condition(well=not reasons, reasons=tuple(reasons), waits_for=waits_for)

    def _leave(self, waiter: str) -> _Wait | None:
        """End a wait; gives it if nobody else waits for that part."""
        wait = self._waits.pop(waiter, None)
        if wait is None or any(other.part == wait.part for other in self._waits.values()):
            return None
        return wait

    def _say_over(self, wait: _Wait | None) -> None:
        if wait is not None:
            self._metrics.waits(wait.part, yes=False)
            seconds = self._clock.monotonic() - wait.since
            _logger.warning("going on: waited %.1f s for %s", seconds, self._names[wait.part])


def part_at_fault(error: BaseException) -> Part:
    """Who is away, by what an attempt raised."""
    if isinstance(error, RegistryError):
        return "registry"
    if isinstance(error, BrokerAwayError | DeadLettersUndeliveredError):
        return "broker"
    return "clickhouse"
