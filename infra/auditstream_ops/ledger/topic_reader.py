"""Reads from the broker a topic's id, the first and last offset of each partition, and the commits of a group."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AdminClient

from auditstream_ops.topic_consumer import TopicConsumer
from auditstream_schemas.errors import OperationError
from auditstream_schemas.kafka import BROKER_SECONDS, topic_id
from auditstream_schemas.settings import KafkaSettings

_AT_MOST_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The range of offsets that the broker has of a partition.

    Attributes:
        low: Offset of the first record that the broker still keeps.
        end: One past the last record. Where only transaction markers follow the ledger's end: the ledger's end.
    """

    low: int
    end: int


class TopicReader(TopicConsumer):
    """Reads one topic for the checks of the ledger, and the commits of one consumer group."""

    def __init__(self, kafka: KafkaSettings, *, group: str = "auditstream-verify") -> None:
        self._kafka = kafka
        # A short wait: an empty fetch is how the end of a partition is noticed.
        waits = {"fetch_wait_max_ms": 50}
        super().__init__(kafka, kafka.topic, client="verify", group_id=group, auto_offset_reset="error", **waits)

    def topic_id(self) -> UUID | None:
        """The id that the broker gave the topic when it was created; None if there is no such topic."""
        admin = AdminClient(self._kafka.librdkafka_client("verify"))
        try:
            with self.errors():
                return topic_id(admin, self.topic)
        except TimeoutError as error:
            raise OperationError(f"no broker at {self._kafka.kafka_bootstrap_servers}: it does not answer") from error

    def required_topic_id(self) -> UUID:
        """The same; a topic that is missing is an OperationError."""
        id = self.topic_id()
        if id is None:
            raise OperationError(f"there is no topic {self.topic}; run `auditstream topics`")
        return id

    def committed(self) -> dict[int, int]:
        """The next offset that the group committed, of each partition that has one."""
        partitions = [TopicPartition(self.topic, partition) for partition in self.partitions()]
        with self.errors():
            commits = self._consumer.committed(partitions, timeout=BROKER_SECONDS)
        return {commit.partition: commit.offset for commit in commits if commit.offset >= 0}

    def watermarks(self) -> dict[int, tuple[int, int]]:
        """The first offset that the broker keeps of each partition, and its high watermark."""
        return {partition: self._watermarks(partition) for partition in self.partitions()}

    def extents(self, next_offsets: Mapping[int, int]) -> dict[int, Extent]:
        """The first and last offset of each partition; ``next_offsets`` are one past the end of each ledger.

        The high watermark alone is not enough. The local stack's broker gives the first offset of its last batch
        plus one, and Apache Kafka counts transaction markers. So this method looks for a record where the ledger ends.
        If there is one, it seeks to the watermark and reads on from there, which is one batch at most. It never
        seeks beyond the watermark, because the local stack's broker does not answer there.
        """
        watermarks = self.watermarks()
        starts = {
            partition: min(max(next_offsets.get(partition, 0), low), high)
            for partition, (low, high) in watermarks.items()
        }
        with self.errors():
            ends = self._ends(starts, {partition: high for partition, (_, high) in watermarks.items()})
        return {partition: Extent(low=low, end=ends[partition]) for partition, (low, _) in watermarks.items()}

    def records(self, partition: int, first: int, last: int) -> Iterator[Message]:
        """The records of a range of offsets, both inclusive, that the broker still keeps."""
        low, _ = self._watermarks(partition)
        if low > last:
            return
        try:
            for message in self.consume({partition: max(first, low)}):
                offset = message.offset()
                if message.error() is not None or offset is None or offset > last:
                    return
                yield message
                if offset == last:
                    return
        finally:
            self._consumer.unassign()

    def _watermarks(self, partition: int) -> tuple[int, int]:
        with self.errors():
            return self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=BROKER_SECONDS)

    def _ends(self, starts: Mapping[int, int], watermarks: Mapping[int, int]) -> dict[int, int]:
        ends = dict(starts)
        unread = set(starts)
        sought = set()
        deadline = time.monotonic() + _AT_MOST_SECONDS
        for message in self.consume(starts):
            partition, offset = message.partition(), message.offset()
            if partition is None or offset is None or partition not in unread:
                continue
            if message.error() is not None:
                unread.discard(partition)
            else:
                ends[partition] = max(ends[partition], offset + 1)
                if partition not in sought and offset + 1 < watermarks[partition]:
                    sought.add(partition)
                    ends[partition] = watermarks[partition]
                    self._consumer.seek(TopicPartition(self.topic, partition, watermarks[partition]))
            if time.monotonic() > deadline:
                # Records arrive faster than they are read here. The offsets known so far are enough.
                unread = {number for number in unread if ends[number] < watermarks[number] and number not in sought}
            if not unread:
                break
        self._consumer.unassign()
        return ends
