"""The partitions of this sink: which it has, which it can read already, and from where.

A partition that the group has assigned is unpositioned: nothing is read from it. Once the end of its ledger is known it
is positioned, and the topic is read from one past that end. It is gone when it was revoked, or lost to another sink. A
reset makes every positioned partition unpositioned, so that it is read again from the end of its ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from auditstream_schemas.errors import SinkError
from auditstream_schemas.kafka import BROKER_SECONDS, topic_id
from auditstream_sink.clickhouse_writer import ClickHouseWriter, UnknownOutcomeError
from auditstream_sink.settings import SinkSettings
from auditstream_storage import LedgerEnd


class BrokerAwayError(UnknownOutcomeError):
    """The broker is away or has answered with an error; the same call may succeed later."""


class Assignment:
    """The state of this sink's partitions. Belongs to the loop's thread; blocks on nothing.

    Attributes:
        fencing_time: When partitions were last positioned, by ClickHouse's clock, nanoseconds since 1970.
        next_offsets: By positioned partition, the next offset to add to a batch; ``BatchBuilder.add`` advances it.
        at_end: Positioned partitions that were read to their end.
        ledger_ends: By positioned partition; the writer of a batch advances it. A reset makes a new one, so that a
            cancelled batch cannot change it.
        must_seek: Whether the consumer has to be moved to ``next_offsets`` before a fetched record may be added.
    """

    def __init__(self) -> None:
        self.topic_id = UUID(int=0)
        self.fencing_time = 0
        self.unpositioned: set[int] = set()
        self.next_offsets: dict[int, int] = {}
        self.at_end: set[int] = set()
        self.ledger_ends: dict[int, LedgerEnd] = {}
        self.must_seek = False

    def __len__(self) -> int:
        return len(self.next_offsets) + len(self.unpositioned)

    @property
    def is_at_end(self) -> bool:
        """Whether all partitions were read to their end; false while there are none, or an unpositioned one."""
        return not self.unpositioned and bool(self.next_offsets) and self.at_end.issuperset(self.next_offsets)

    def assigned(self, partitions: Iterable[int]) -> None:
        """The group gave partitions to this sink."""
        self.unpositioned.update(partitions)

    def gone(self, partitions: Iterable[int]) -> None:
        """The group took partitions away, or gave them to another sink already."""
        for partition in partitions:
            self.next_offsets.pop(partition, None)
            self.unpositioned.discard(partition)
        self.must_seek = True

    def positioned(self, topic_id: UUID, fencing_time: int, ledger_ends: Mapping[int, LedgerEnd]) -> bool:
        """Position partitions at the ends of their ledgers; False if one of them is gone since these were looked up.

        If the topic ``is_other_topic``, call ``reset`` first.
        """
        if not self.unpositioned.issuperset(ledger_ends):
            return False
        self.topic_id, self.fencing_time = topic_id, fencing_time
        self.unpositioned.difference_update(ledger_ends)
        self.ledger_ends.update(ledger_ends)
        self.next_offsets.update({partition: ledger.end + 1 for partition, ledger in ledger_ends.items()})
        self.must_seek = True
        return True

    def is_other_topic(self, topic_id: UUID) -> bool:
        """Whether partitions are read under another id: the topic was deleted and created again."""
        return bool(self.next_offsets) and topic_id != self.topic_id

    def reset(self) -> None:
        """Make every positioned partition unpositioned: its offsets since the end of its ledger are read again."""
        self.unpositioned.update(self.next_offsets)
        self.next_offsets.clear()
        self.ledger_ends = {}
        self.must_seek = True

    def sought(self) -> None:
        """The consumer was moved to ``next_offsets``."""
        self.must_seek = False
        self.at_end.clear()


class Positions:
    """Looks up where to read on: one past the end of the ledger, or at the start of the topic.

    Every call asks the broker or ClickHouse and blocks on it.
    """

    def __init__(self, settings: SinkSettings, consumer: Consumer, clickhouse: ClickHouseWriter) -> None:
        self._topic, self._consumer, self._clickhouse = settings.topic, consumer, clickhouse
        self._admin = AdminClient(settings.librdkafka_client("positions"))

    def topic_id(self) -> UUID:
        """The id that the broker gave the topic when it was created (KIP-516).

        Raises:
            BrokerAwayError: The broker is away, or has no such topic; the same call may succeed later.
            SettingsError: The broker is too old.
        """
        try:
            id = topic_id(self._admin, self._topic)
        except (KafkaException, TimeoutError) as error:
            raise BrokerAwayError(f"broker: cannot describe topic {self._topic}: {error}") from error
        if id is None:
            raise BrokerAwayError(f"broker: there is no topic {self._topic}")
        return id

    def look_up(self, partitions: Sequence[int]) -> tuple[UUID, int, dict[int, LedgerEnd]]:
        """Topic id, fencing time, and by partition where its ledger ends; without one, before the topic's start.

        Raises:
            UnknownOutcomeError: Broker (BrokerAwayError) or ClickHouse is away; the same call may succeed later.
            SinkError: There is no such topic, or the broker has deleted records that no sink read.
        """
        topic_id = self.topic_id()
        stored = self._clickhouse.ledger_ends(topic_id=topic_id)
        ledger_ends = {}
        for partition in partitions:
            low = self._low_watermark(partition)
            ledger_end = stored.get(partition) or LedgerEnd(end=low - 1, line_first=None)
            if ledger_end.end + 1 < low:
                raise SinkError(
                    f"partition {partition}: offsets {ledger_end.end + 1} to {low - 1} were deleted by the broker "
                    "before any sink read them: those events are lost, and the topic's retention is shorter than the "
                    "outage. `auditstream accept-loss` enters them into the ledger as lost, so that the sink can go on"
                )
            ledger_ends[partition] = ledger_end
        return topic_id, self._clickhouse.fencing_time(), ledger_ends

    def close(self) -> None:
        """Close the connection to ClickHouse."""
        self._clickhouse.close()

    def _low_watermark(self, partition: int) -> int:
        coordinates = TopicPartition(self._topic, partition)
        try:
            return self._consumer.get_watermark_offsets(coordinates, timeout=BROKER_SECONDS)[0]
        except KafkaException as error:
            raise BrokerAwayError(f"broker: no watermarks of partition {partition}: {error}") from error
