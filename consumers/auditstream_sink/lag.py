"""How far the books are behind the topic."""

from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, TopicPartition

from auditstream_sink.batch import OffsetRange
from auditstream_sink.clock import Clock
from auditstream_sink.metrics import Metrics
from auditstream_storage.ledger import LedgerEnd

_EVERY_SECONDS = 1.0


class Lag:
    """Shows the lag of each partition about once a second; asks nobody."""

    def __init__(self, topic: str, consumer: Consumer, metrics: Metrics, clock: Clock) -> None:
        self._topic = topic
        self._consumer = consumer
        self._metrics = metrics
        self._clock = clock
        self._due = 0.0
        self._shown: set[int] = set()

    def show(
        self, partitions: Iterable[int], tails: Mapping[int, LedgerEnd], hands: Iterable[Mapping[int, OffsetRange]]
    ) -> None:
        """Measure, if it is time.

        Args:
            partitions: Those that are read.
            tails: Where the books of each end.
            hands: What was read and is not in the books, oldest first.
        """
        now = self._clock.monotonic()
        if now < self._due:
            return
        self._due = now + _EVERY_SECONDS
        wanted, held = set(partitions), list(hands)
        for partition in self._shown - wanted:
            self._metrics.no_lag(partition)
        self._shown = wanted
        for partition in wanted:
            oldest = next((spans[partition].first_time for spans in held if partition in spans), None)
            age = 0.0 if oldest is None else max(0.0, self._clock.now().timestamp() - oldest)
            self._metrics.lag(partition, records=self._behind(partition, tails[partition]), seconds=age)

    def _behind(self, partition: int, tail: LedgerEnd) -> int | None:
        # What the last fetch told; negative before the first.
        _low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return max(0, high - tail.end - 1) if high >= 0 else None
