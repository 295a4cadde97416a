"""What the sink counts and measures: one list, from which the Prometheus objects and the docs are made."""

import collections
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from auditstream_sink.clock import Clock
from auditstream_sink.statements import FAULTS
from auditstream_storage.ledger import COUNTS, LedgerLine

Step = Literal["place", "schema", "stage", "judge", "insert", "read_back", "dead_letters", "account", "commit"]
Rebalance = Literal["assigned", "revoked", "lost"]
Part = Literal["clickhouse", "registry", "broker"]

PREFIX = "auditstream_sink_"

_STEPS = ("place", "schema", "stage", "judge", "insert", "read_back", "dead_letters", "account", "commit")
_PARTS: tuple[Part, ...] = ("clickhouse", "registry", "broker")
_REASONS = (*FAULTS, "wire_format", "unknown_schema", "incompatible_schema", "undecodable", "refused", "conflict")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of the sink.

    Attributes:
        name: Behind ``auditstream_sink_``; counters end in ``_total``.
        kind: ``counter`` only grows, ``gauge`` is the state of now, ``histogram`` has buckets, sum and count.
        unit: Of its values.
        help: What it tells, for the person who reads a graph.
        label: Name of its one label; empty if it has none.
        values: What the label may say, where that is known; each is there from the start, at 0.
        buckets: Upper bounds of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS = (
    Metric(
        name="consumed_records_total",
        kind="counter",
        unit="records",
        help="Taken from the topic; what is read again counts again.",
    ),
    Metric(name="consumed_bytes_total", kind="counter", unit="bytes", help="The same records' values."),
    Metric(
        name="records_total",
        kind="counter",
        unit="records",
        help="Entered into the books by this process, by what became of them.",
        label="outcome",
        values=COUNTS[1:],
    ),
    Metric(
        name="dead_letters_total",
        kind="counter",
        unit="records",
        help="Refused records that the dead-letter topic has, by reason.",
        label="reason",
        values=_REASONS,
    ),
    Metric(
        name="refused_share",
        kind="gauge",
        unit="ratio",
        help="Refused records among the last `dead_letter_window`; above `dead_letter_limit` the sink stops.",
    ),
    Metric(
        name="batch_records",
        kind="histogram",
        unit="records",
        help="Records of a batch in the books.",
        buckets=(1, 10, 100, 1_000, 10_000, 50_000, 100_000, 250_000, 500_000),
    ),
    Metric(
        name="batch_seconds",
        kind="histogram",
        unit="seconds",
        help="From a batch's first record in hand to its line in the books.",
        buckets=_SECONDS,
    ),
    Metric(
        name="step_seconds",
        kind="histogram",
        unit="seconds",
        help="Duration of each step, failed ones included; `place` finds where to read on, `schema` asks the registry.",
        label="step",
        values=_STEPS,
        buckets=_SECONDS,
    ),
    Metric(
        name="step_failures_total",
        kind="counter",
        unit="steps",
        help="Steps that failed or whose outcome is unknown; they are taken again.",
        label="step",
        values=_STEPS,
    ),
    Metric(
        name="lag_records",
        kind="gauge",
        unit="records",
        help="From the end of the books to the end of the topic, as far as the client knows it: it does not ask "
        "while partitions are paused. Markers of transactions count.",
        label="partition",
    ),
    Metric(
        name="lag_seconds",
        kind="gauge",
        unit="seconds",
        help="Age of the oldest record in hand that is not in the books, by its Kafka timestamp; 0 if there is none.",
        label="partition",
    ),
    Metric(
        name="rebalances_total",
        kind="counter",
        unit="events",
        help="What the group said; `lost` means that another sink owned them already.",
        label="event",
        values=("assigned", "revoked", "lost"),
    ),
    Metric(name="partitions", kind="gauge", unit="partitions", help="Assigned to this sink."),
    Metric(
        name="unpositioned_partitions",
        kind="gauge",
        unit="partitions",
        help="Assigned, but where to read on is not known yet.",
    ),
    Metric(name="paused", kind="gauge", unit="0 or 1", help="Partitions are paused; the sink stays in its group."),
    Metric(
        name="waiting",
        kind="gauge",
        unit="0 or 1",
        help="The sink waits for this part to be there again; nothing is lost.",
        label="part",
        values=_PARTS,
    ),
    Metric(
        name="waiting_since_timestamp_seconds",
        kind="gauge",
        unit="Unix time",
        help="Since when it waits; 0 if it does not.",
        label="part",
        values=_PARTS,
    ),
    Metric(
        name="last_error_timestamp_seconds",
        kind="gauge",
        unit="Unix time",
        help="When this part last failed the sink; 0 for never.",
        label="part",
        values=_PARTS,
    ),
    Metric(
        name="last_poll_timestamp_seconds",
        kind="gauge",
        unit="Unix time",
        help="When the loop last asked for records.",
    ),
)


class Metrics:
    """The sink's figures. Safe to share between threads; blocks on nothing.

    Figures are entered by batch, by step or by call of the broker, never by record.

    Attributes:
        registry: What an exposition reads; every sink has its own, so that several fit into a process.
    """

    def __init__(self, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in METRICS:
            self._make(metric)
        ProcessCollector(registry=self.registry)

    @contextmanager
    def step(self, name: Step) -> Iterator[None]:
        """Measure what the block does; count it as failed if it raises."""
        started = self._clock.monotonic()
        try:
            yield
        except BaseException:
            self._counters["step_failures_total"].labels(name).inc()
            raise
        finally:
            self._histograms["step_seconds"].labels(name).observe(self._clock.monotonic() - started)

    def consumed(self, records: int, size: int) -> None:
        """Records were taken into a batch; ``size`` in bytes."""
        self._counters["consumed_records_total"].inc(records)
        self._counters["consumed_bytes_total"].inc(size)

    def settled(self, lines: Sequence[LedgerLine], reasons: Iterable[str], *, opened: float) -> None:
        """A batch is in the books.

        Args:
            lines: Its lines.
            reasons: Of its dead letters, one each.
            opened: When its first record was taken, by the clock's ``monotonic``.
        """
        for outcome in COUNTS[1:]:
            self._counters["records_total"].labels(outcome).inc(sum(getattr(line, outcome) for line in lines))
        for reason, number in collections.Counter(reasons).items():
            self._counters["dead_letters_total"].labels(reason).inc(number)
        self._histograms["batch_records"].observe(sum(line.read for line in lines))
        self._histograms["batch_seconds"].observe(self._clock.monotonic() - opened)

    def refused(self, share: float) -> None:
        """How much of the flood limit's window was refused, 0 to 1."""
        self._gauges["refused_share"].set(share)

    def rebalanced(self, event: Rebalance) -> None:
        """The group gave or took partitions."""
        self._counters["rebalances_total"].labels(event).inc()

    def polled(self, *, partitions: int, unpositioned: int) -> None:
        """The loop asked for records."""
        self._gauges["last_poll_timestamp_seconds"].set(self._now())
        self._gauges["partitions"].set(partitions)
        self._gauges["unpositioned_partitions"].set(unpositioned)

    def lag(self, partition: int, *, records: int | None, seconds: float) -> None:
        """How far the books of a partition are behind; None where the topic's end is not known."""
        if records is not None:
            self._gauges["lag_records"].labels(str(partition)).set(records)
        self._gauges["lag_seconds"].labels(str(partition)).set(seconds)

    def no_lag(self, partition: int) -> None:
        """The partition is not this sink's any more."""
        for name in ("lag_records", "lag_seconds"):
            self._gauges[name].remove(str(partition))

    def paused(self, *, yes: bool) -> None:
        """Partitions stand still, or do not."""
        self._gauges["paused"].set(yes)

    def failed(self, part: Part) -> None:
        """A part did not do what it was asked."""
        self._gauges["last_error_timestamp_seconds"].labels(part).set(self._now())

    def waits(self, part: Part, *, yes: bool) -> None:
        """The sink waits for a part from now on, or does not any more."""
        self._gauges["waiting"].labels(part).set(yes)
        self._gauges["waiting_since_timestamp_seconds"].labels(part).set(self._now() if yes else 0)

    def _make(self, metric: Metric) -> None:
        name, labels = PREFIX + metric.name, [metric.label] if metric.label else []
        made: Counter | Gauge | Histogram
        if metric.kind == "counter":
            made = self._counters[metric.name] = Counter(name, metric.help, labels, registry=self.registry)
        elif metric.kind == "gauge":
            made = self._gauges[metric.name] = Gauge(name, metric.help, labels, registry=self.registry)
        else:
            made = self._histograms[metric.name] = Histogram(
                name, metric.help, labels, registry=self.registry, buckets=metric.buckets
            )
        for value in metric.values:
            made.labels(value)

    def _now(self) -> float:
        return self._clock.now().timestamp()
