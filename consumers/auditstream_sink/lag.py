"""How far the ledger is behind the topic."""

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

from auditstream_sink.assignment import Assignment
from auditstream_sink.batch import OffsetRange
from auditstream_sink.clock import Clock
from auditstream_sink.metrics import Metrics

_EVERY_SECONDS = 1.0


class Lag:
    """Updates the lag of each partition about once a second; sends no request."""

    def __init__(self, topic: str, consumer: Consumer, metrics: Metrics, clock: Clock) -> None:
        self._topic, self._consumer = topic, consumer
        self._metrics, self._clock = metrics, clock
        self._due = 0.0
        self._partitions: set[int] = set()

    def update(self, assignment: Assignment, batches: Sequence[Mapping[int, OffsetRange]]) -> None:
        """Measure, if a second has passed. ``batches`` are those that are not in the ledger, oldest first."""
        now = self._clock.monotonic()
        if now < self._due:
            return
        self._due = now + _EVERY_SECONDS
        partitions = set(assignment.next_offsets)
        for partition in self._partitions - partitions:
            self._metrics.no_lag(partition)
        self._partitions = partitions
        for partition in partitions:
            oldest = next((ranges[partition].first_time for ranges in batches if partition in ranges), None)
            age = 0.0 if oldest is None else max(0.0, self._clock.now().timestamp() - oldest)
            # The end of the topic as of the last fetch; negative before the first.
            _low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            records = max(0, high - assignment.ledger_ends[partition].end - 1) if high >= 0 else None
            self._metrics.lag(partition, records=records, seconds=age)
