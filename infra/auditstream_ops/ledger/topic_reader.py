"""What the broker knows of a topic: its id, where its partitions begin and end, what a group committed.

Nothing is joined and nothing is committed: a running sink is not disturbed.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from uuid import UUID

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from auditstream_schemas.errors import OperationError
from auditstream_schemas.kafka import BROKER_SECONDS, topic_id
from auditstream_schemas.settings import KafkaSettings

_AT_MOST_SECONDS = 60
_POLL_SECONDS = 0.1
_CONSUME_AT_MOST = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What a partition of the topic holds.

    Attributes:
        low: Offset of the first record that the broker still keeps.
        end: One past the last record; where the books end if only markers of transactions follow.
    """

    low: int
    end: int


class TopicReader:
    """A look at one topic; a context manager. Every method blocks on the broker.

    Args:
        kafka: The topic and its broker.
        group: The consumer group whose commits are asked for.

    Every method raises OperationError when the broker does not answer.
    """

    def __init__(self, kafka: KafkaSettings, *, group: str = "auditstream-accounts") -> None:
        self._kafka = kafka
        self._topic = kafka.topic
        self._consumer = Consumer(
            {
                **kafka.librdkafka_client("accounts"),
                "group.id": group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                # The end of a partition is told when a fetch comes back empty.
                "fetch.wait.max.ms": 50,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._consumer.close()

    def topic_id(self) -> UUID | None:
        """The id that the broker gave the topic when it was created; nothing if there is no such topic."""
        admin = AdminClient(self._kafka.librdkafka_client("accounts"))
        try:
            return topic_id(admin, self._topic)
        except KafkaException as error:
            raise self._away(error) from error
        except TimeoutError as error:
            raise OperationError(f"no broker at {self._kafka.kafka_bootstrap_servers}: it does not answer") from error

    def committed(self) -> dict[int, int]:
        """The next offset that the group committed, of each partition that has one."""
        try:
            places = self._consumer.committed(
                [TopicPartition(self._topic, partition) for partition in self._partitions()], timeout=BROKER_SECONDS
            )
        except KafkaException as error:
            raise self._away(error) from error
        return {place.partition: place.offset for place in places if place.offset >= 0}

    def watermarks(self) -> dict[int, tuple[int, int]]:
        """The first offset that the broker keeps of each partition, and its high watermark."""
        try:
            return {
                partition: self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, partition), timeout=BROKER_SECONDS
                )
                for partition in self._partitions()
            }
        except KafkaException as error:
            raise self._away(error) from error

    def extents(self, accounted: Mapping[int, int]) -> dict[int, Extent]:
        """Where each partition begins and ends.

        The high watermark alone would not do: the local stack's broker gives the first offset of its last
        batch plus one, and a real one counts the markers of transactions. So: is there a record where the
        books end? If there is, leap to the watermark, and read on from there. That is a batch at most. A
        position beyond the watermark is never asked for: the local broker does not answer.

        Args:
            accounted: One past the last accounted offset, of each partition that has books.
        """
        marks = self.watermarks()
        try:
            starts = {
                partition: min(max(accounted.get(partition, 0), low), high) for partition, (low, high) in marks.items()
            }
            ends = self._ends(starts, {partition: high for partition, (_, high) in marks.items()})
        except KafkaException as error:
            raise self._away(error) from error
        return {partition: Extent(low=low, end=ends[partition]) for partition, (low, _) in marks.items()}

    def records(self, partition: int, first: int, last: int) -> Iterator[Message]:
        """The records of a run of offsets, both inclusive, that the broker still keeps."""
        try:
            low, _ = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=BROKER_SECONDS
            )
            if low > last:
                return
            for message in self._consume({partition: max(first, low)}):
                offset = message.offset()
                if message.error() is not None or offset is None or offset > last:
                    return
                yield message
                if offset == last:
                    return
        except KafkaException as error:
            raise self._away(error) from error
        finally:
            self._consumer.unassign()

    def _partitions(self) -> list[int]:
        try:
            found = self._consumer.list_topics(self._topic, timeout=BROKER_SECONDS).topics[self._topic]
        except KafkaException as error:
            raise self._away(error) from error
        if found.error is not None:
            raise OperationError(f"topic {self._topic}: {found.error.str()}; run `auditstream topics`")
        return sorted(found.partitions)

    def _ends(self, starts: Mapping[int, int], marks: Mapping[int, int]) -> dict[int, int]:
        ends = dict(starts)
        unread = set(starts)
        leapt = set()
        give_up = time.monotonic() + _AT_MOST_SECONDS
        for message in self._consume(starts):
            partition, offset, error = message.partition(), message.offset(), message.error()
            if partition is None or offset is None or partition not in unread:
                continue
            if error is not None:
                unread.discard(partition)
            else:
                ends[partition] = max(ends[partition], offset + 1)
                if partition not in leapt and offset + 1 < marks[partition]:
                    leapt.add(partition)
                    ends[partition] = marks[partition]
                    self._consumer.seek(TopicPartition(self._topic, partition, marks[partition]))
            if time.monotonic() > give_up:
                # Records come in faster than they are read here: what is known to be there must do.
                unread = {each for each in unread if ends[each] < marks[each] and each not in leapt}
            if not unread:
                break
        self._consumer.unassign()
        return ends

    def _consume(self, starts: Mapping[int, int]) -> Iterator[Message]:
        """Records, and a message with an error where a partition ends. Never stops."""
        self._consumer.assign([TopicPartition(self._topic, partition, start) for partition, start in starts.items()])
        silent_until = time.monotonic() + BROKER_SECONDS
        while True:
            for message in self._consumer.consume(_CONSUME_AT_MOST, _POLL_SECONDS):
                silent_until = time.monotonic() + BROKER_SECONDS
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise OperationError(f"topic {self._topic}, partition {message.partition()}: {error.str()}")
                yield message
            if time.monotonic() > silent_until:
                raise OperationError(f"topic {self._topic}: no answer from {self._kafka.kafka_bootstrap_servers}")

    def _away(self, error: KafkaException) -> OperationError:
        return OperationError(f"no broker at {self._kafka.kafka_bootstrap_servers}: {error.args[0].str()}")
