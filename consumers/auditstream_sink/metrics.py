"""The metrics of the sink: one list, which makes the Prometheus objects and the documentation."""

import collections
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from auditstream_sink.clock import Clock
from auditstream_sink.statements import FAULTS
from auditstream_storage import COUNTS, LedgerLine

Step = Literal["position", "schema", "stage", "classify", "insert", "read_back", "dead_letters", "ledger", "commit"]
Rebalance = Literal["assigned", "revoked", "lost"]
Dependency = Literal["clickhouse", "registry", "broker"]

PREFIX = "auditstream_sink_"
_CLASSES: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}

_STEPS, _DEPENDENCIES = get_args(Step), get_args(Dependency)
_REASONS = (*FAULTS, "wire_format", "unknown_schema", "incompatible_schema", "undecodable", "refused", "conflict")
_ROWS = (1, 10, 100, 1_000, 10_000, 50_000, 100_000, 250_000, 500_000)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of the sink.

    Attributes:
        name: Without ``auditstream_sink_``; a counter's ends in ``_total``.
        label: Name of its one label; empty if it has none.
        values: The label's values, if they are known; each is shown from the start, at 0.
        buckets: Upper bounds of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# fmt: off
METRICS = (
    # In the order of a record's way: fetched, written, committed; then the group and the dependencies.
    Metric("consumed_records_total", "counter", "records",
           "Records fetched from the topic. Records fetched again after a retry are counted again."),
    Metric("consumed_bytes_total", "counter", "bytes", "Size of the values of these records."),
    Metric("records_total", "counter", "records",
           "Records that this process has entered into the ledger, by their count there.", "outcome", COUNTS[1:]),
    Metric("dead_letters_total", "counter", "records",
           "Refused records that were written to the dead-letter topic, by reason.", "reason", _REASONS),
    Metric("dead_letter_share", "gauge", "ratio",
           "Share of refused records among the last `dead_letter_window`. Above `dead_letter_limit` the sink stops."),
    Metric("batch_records", "histogram", "records", "Records of each batch in the ledger.", buckets=_ROWS),
    Metric("batch_seconds", "histogram", "seconds",
           "Time from a batch's first record to its ledger line.", buckets=_SECONDS),
    Metric("step_seconds", "histogram", "seconds",
           "Duration of each step, failed ones included. `position` looks up where to read on, `schema` asks the "
           "registry.", "step", _STEPS, _SECONDS),
    Metric("step_failures_total", "counter", "steps",
           "Steps that failed, or whose outcome is unknown. They are retried.", "step", _STEPS),
    Metric("lag_records", "gauge", "records",
           "Offsets from the end of the ledger to the end of the topic, those of transaction markers included. The end "
           "of the topic is that of the last fetch; a paused partition is not fetched.", "partition"),
    Metric("lag_seconds", "gauge", "seconds",
           "Age of the oldest fetched record that is not in the ledger, by its Kafka timestamp; 0 if there is none.",
           "partition"),
    Metric("rebalances_total", "counter", "events",
           "Changes of this sink's partitions by its group. `lost` means that another sink has them already.",
           "event", get_args(Rebalance)),
    Metric("partitions", "gauge", "partitions", "Partitions assigned to this sink."),
    Metric("unpositioned_partitions", "gauge", "partitions",
           "Assigned partitions that cannot be read yet, because the end of their ledger is not known."),
    Metric("paused", "gauge", "0 or 1",
           "1 while the sink has paused its partitions. It goes on polling and stays in its group."),
    Metric("waiting", "gauge", "0 or 1",
           "1 while the sink waits for this dependency to come back. Nothing is lost.", "dependency", _DEPENDENCIES),
    Metric("waiting_since_timestamp_seconds", "gauge", "Unix time",
           "When that wait began; 0 if the sink does not wait.", "dependency", _DEPENDENCIES),
    Metric("last_error_timestamp_seconds", "gauge", "Unix time",
           "When a request to this dependency last failed; 0 for never.", "dependency", _DEPENDENCIES),
    Metric("last_poll_timestamp_seconds", "gauge", "Unix time", "When the loop last polled for records."),
)
# fmt: on


class Metrics:
    """The Prometheus objects of METRICS, by their names there. Safe to share between threads; blocks on nothing.

    They are updated for each batch, step or poll, never for each record. Every sink has a ``registry`` of its own, so
    that several fit into a process.
    """

    def __init__(self, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._metrics = {metric.name: self._make(metric) for metric in METRICS}
        ProcessCollector(registry=self.registry)

    def __getitem__(self, name: str) -> Any:
        return self._metrics[name]

    @contextmanager
    def step(self, name: Step) -> Iterator[None]:
        """Measure the block; count it as failed if it raises."""
        started = self._clock.monotonic()
        try:
            yield
        except BaseException:
            self["step_failures_total"].labels(name).inc()
            raise
        finally:
            self["step_seconds"].labels(name).observe(self._clock.monotonic() - started)

    def batch_written(self, lines: Sequence[LedgerLine], reasons: Iterable[str], *, opened: float) -> None:
        """A batch is in the ledger; ``reasons`` are those of its dead letters, ``opened`` is `Batch.opened`."""
        for outcome in COUNTS[1:]:
            self["records_total"].labels(outcome).inc(sum(getattr(line, outcome) for line in lines))
        for reason, number in collections.Counter(reasons).items():
            self["dead_letters_total"].labels(reason).inc(number)
        self["batch_records"].observe(sum(line.read for line in lines))
        self["batch_seconds"].observe(self._clock.monotonic() - opened)

    def _make(self, metric: Metric) -> Any:
        options = {"buckets": metric.buckets} if metric.buckets else {}
        labels = [metric.label] if metric.label else []
        made = _CLASSES[metric.kind](PREFIX + metric.name, metric.help, labels, registry=self.registry, **options)
        for value in metric.values:
            made.labels(value)
        return made
