"""The health of the sink: whether its loop polls, whether it reads, and which dependencies it waits for."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from auditstream_schemas.errors import RegistryError
from auditstream_sink.assignment import BrokerAwayError
from auditstream_sink.clock import Clock
from auditstream_sink.dead_letters import DeadLettersUndeliveredError
from auditstream_sink.metrics import Dependency, Metrics, Rebalance
from auditstream_sink.settings import SinkSettings

_MAX_POLL_MS = 300_000
"""librdkafka's default of ``max.poll.interval.ms``: a consumer that does not poll for so long leaves its group."""

_logger = logging.getLogger("auditstream.sink")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthStatus:
    """An answer of /healthz or /readyz: all faults, and by dependency the seconds that the sink has waited for it."""

    reasons: tuple[str, ...] = ()
    waits_for: Mapping[Dependency, float] = field(default_factory=dict)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reasons


class Health:
    """Collects reports of the loop and the batch writers. Safe to share between threads; blocks on nothing.

    Attributes:
        is_member: Whether this sink is a member of its group.
    """

    def __init__(self, settings: SinkSettings, metrics: Metrics, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock
        self._names: dict[Dependency, str] = {
            "clickhouse": "ClickHouse",
            "registry": "the schema registry",
            "broker": f"the broker at {settings.kafka_bootstrap_servers}",
        }
        self._max_poll_seconds = int(settings.librdkafka().get("max.poll.interval.ms", _MAX_POLL_MS)) / 1000
        self._lock = threading.Lock()
        self._polled = clock.monotonic()
        self.is_member = False
        self._unpositioned = 0
        self._waits: dict[str, tuple[Dependency, float]] = {}

    def polled(self, *, partitions: int, unpositioned: int) -> None:
        """The loop polled; it has so many partitions, of which it cannot read the unpositioned ones."""
        with self._lock:
            self._polled = self._clock.monotonic()
            self._unpositioned = unpositioned
        self._metrics["last_poll_timestamp_seconds"].set(self._now())
        self._metrics["partitions"].set(partitions)
        self._metrics["unpositioned_partitions"].set(unpositioned)

    def rebalanced(self, event: Rebalance, *, unpositioned: int) -> None:
        """The group changed this sink's partitions; a sink without partitions is a member too."""
        with self._lock:
            self.is_member = event != "lost"
            self._unpositioned = unpositioned
        self._metrics["rebalances_total"].labels(event).inc()

    def waiting(self, waiter: str, dependency: Dependency, error: object) -> None:
        """A request failed and will be retried until it succeeds. Logs the first failure of a wait.

        ``waiter`` names the work that waits, for one dependency at a time. The error is logged; the health port does
        not show it.
        """
        with self._lock:
            is_known = any(other == dependency for other, _since in self._waits.values())
            is_other = self._waits.get(waiter, (dependency, 0.0))[0] != dependency
            ended = self._end_wait(waiter) if is_other else None
            self._waits.setdefault(waiter, (dependency, self._clock.monotonic()))
        self._metrics["last_error_timestamp_seconds"].labels(dependency).set(self._now())
        self._report_end(ended)
        if not is_known:
            self._metrics["waiting"].labels(dependency).set(1)
            self._metrics["waiting_since_timestamp_seconds"].labels(dependency).set(self._now())
            _logger.warning("waiting for %s, nothing is lost: %s", self._names[dependency], error)

    def recovered(self, waiter: str) -> None:
        """The dependency answers again, or its answer is not needed any more. Logs the end of its last wait."""
        with self._lock:
            ended = self._end_wait(waiter)
        self._report_end(ended)

    def is_waiting(self, waiter: str) -> bool:
        """Whether this work waits."""
        return waiter in self._waits

    def alive(self) -> HealthStatus:
        """Whether the loop polls; it does so too while it waits for a dependency."""
        with self._lock:
            silent = self._clock.monotonic() - self._polled
        if silent <= self._max_poll_seconds:
            return HealthStatus()
        reason = (
            f"the loop has not polled for {silent:.0f} s; after {self._max_poll_seconds:.0f} s a sink leaves its "
            "group: restart the sink"
        )
        return HealthStatus(reasons=(reason,))

    def ready(self) -> HealthStatus:
        """Whether records that arrive now are read and stored."""
        with self._lock:
            now = self._clock.monotonic()
            waits_for: dict[Dependency, float] = {}
            for dependency, since in self._waits.values():
                waits_for[dependency] = round(max(now - since, waits_for.get(dependency, 0.0)), 1)
            is_member, unpositioned = self.is_member, self._unpositioned
        reasons = [f"waiting for {self._names[dependency]} for {age} s" for dependency, age in waits_for.items()]
        if not is_member:
            reasons.append("not a member of its group yet")
        if unpositioned:
            reasons.append(f"{unpositioned} partitions cannot be read yet: the end of their ledger is not known")
        return HealthStatus(reasons=tuple(reasons), waits_for=waits_for)

    def _end_wait(self, waiter: str) -> tuple[Dependency, float] | None:
        """End a wait; returns it unless another waiter waits for the same dependency."""
        ended = self._waits.pop(waiter, None)
        others = [dependency for dependency, _since in self._waits.values()]
        return None if ended is None or ended[0] in others else ended

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _report_end(self, ended: tuple[Dependency, float] | None) -> None:
        if ended is not None:
            dependency, since = ended
            for name in ("waiting", "waiting_since_timestamp_seconds"):
                self._metrics[name].labels(dependency).set(0)
            seconds = self._clock.monotonic() - since
            _logger.warning("going on: waited %.1f s for %s", seconds, self._names[dependency])


def dependency_at_fault(error: BaseException) -> Dependency:
    """The dependency that an error came from."""
    if isinstance(error, RegistryError):
        return "registry"
    if isinstance(error, BrokerAwayError | DeadLettersUndeliveredError):
        return "broker"
    return "clickhouse"
