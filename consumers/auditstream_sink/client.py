"""The Kafka consumer: its settings, its events, its lag, and the broker errors that stop the sink."""

import json
import logging
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, TopicPartition

from auditstream_schemas.errors import SinkError
from auditstream_schemas.kafka import fatal_fault, group_settings
from auditstream_sink.assignment import Assignment
from auditstream_sink.batch import OffsetRange
from auditstream_sink.clock import Clock
from auditstream_sink.health import Health
from auditstream_sink.metrics import Metrics
from auditstream_sink.settings import SinkSettings

_LAG_SECONDS = 1.0
"""How often the lag is measured."""

_logger = logging.getLogger("auditstream.sink")


def consumer_settings(settings: SinkSettings) -> dict[str, object]:
    """Settings for librdkafka."""
    return {
        # Memory for prefetched records; small records take about twice this.
        "queued.max.messages.kbytes": 8 * 1024,
        # Largest answer of a broker, unless one batch alone is larger: it is in memory beside its parsed records.
        "fetch.max.bytes": 6 * 1024 * 1024,
        # Pause between fetches when the prefetch is full; with the default of a second the queue would run empty.
        "fetch.queue.backoff.ms": 20,
        **settings.librdkafka_client("sink"),
        **group_settings(
            settings.group, session_timeout_ms=settings.session_timeout_ms, protocol=settings.group_protocol
        ),
        # Deleted offsets must stop the sink. Any other value would skip records silently, or read them again.
        "auto.offset.reset": "error",
        # For the states of the brokers; that all of them are down is reported at once.
        "statistics.interval.ms": 1000,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }


def raise_if_fatal(error: KafkaError, topic: str) -> None:
    """Log an error that a poll returned instead of a record; raises SinkError if a person has to repair its cause."""
    if fault := fatal_fault(error, topic):
        raise SinkError(fault)
    if error.code() != KafkaError._PARTITION_EOF:
        _logger.info("broker: %s", error.str())


class BrokerEvents:
    """Reports to the health that no broker answers, that one answers again, and that the sink has joined its group.

    The methods are callbacks of the consumer; they run in the loop's thread, while it polls.
    """

    def __init__(self, settings: SinkSettings, health: Health) -> None:
        self._group_protocol, self._health = settings.group_protocol, health

    def on_error(self, error: KafkaError) -> None:
        """Report that all brokers are down; librdkafka repeats this while they are."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._health.waiting("consumer", "broker", error.str())

    def on_statistics(self, text: str) -> None:
        """Report two events that have no callback: a broker is up again, and a group has no partition for the sink."""
        is_waiting = self._health.is_waiting("consumer")
        if self._health.is_member and not is_waiting:
            return
        statistics = json.loads(text)
        if is_waiting and any(broker["state"] == "UP" for broker in statistics["brokers"].values()):
            self._health.recovered("consumer")
        if self._group_protocol == "consumer" and statistics.get("cgrp", {}).get("state") == "up":
            # Unlike the classic protocol, this one makes no callback for an empty assignment.
            self._health.is_member = True


class Lag:
    """Measures how far the ledger is behind the topic, for each partition about once a second; sends no request."""

    def __init__(self, topic: str, consumer: Consumer, metrics: Metrics, clock: Clock) -> None:
        self._topic, self._consumer = topic, consumer
        self._metrics, self._clock = metrics, clock
        self._due = 0.0
        self._partitions: set[int] = set()

    def update(self, assignment: Assignment, batches: Sequence[Mapping[int, OffsetRange]]) -> None:
        """Measure, if a second has passed; ``batches`` are the offsets that are not in the ledger, oldest first."""
        now = self._clock.monotonic()
        if now < self._due:
            return
        self._due = now + _LAG_SECONDS
        partitions = set(assignment.next_offsets)
        for partition in self._partitions - partitions:
            for name in ("lag_records", "lag_seconds"):
                self._metrics[name].remove(str(partition))
        self._partitions = partitions
        for partition in partitions:
            oldest = next((ranges[partition].first_time for ranges in batches if partition in ranges), None)
            age = 0.0 if oldest is None else max(0.0, self._clock.now().timestamp() - oldest)
            # The end of the topic as of the last fetch; negative before the first fetch.
            _low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            if high >= 0:
                records = max(0, high - assignment.ledger_ends[partition].end - 1)
                self._metrics["lag_records"].labels(str(partition)).set(records)
            self._metrics["lag_seconds"].labels(str(partition)).set(age)
