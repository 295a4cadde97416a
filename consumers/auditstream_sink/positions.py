"""Where to read on: one past the end of the books, or the start of the topic where there are none."""

from collections.abc import Sequence
from uuid import UUID

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from auditstream_schemas.errors import SinkError
from auditstream_schemas.kafka import BROKER_SECONDS, topic_id
from auditstream_sink.clickhouse_writer import ClickHouseWriter, UnknownOutcomeError
from auditstream_sink.settings import SinkSettings
from auditstream_storage import LedgerEnd


class BrokerAwayError(UnknownOutcomeError):
    """The broker gave no answer that helps; the same call may succeed later."""


class Positions:
    """Finds positions of the topic's partitions; asks the broker and ClickHouse each time."""

    def __init__(self, settings: SinkSettings, consumer: Consumer, warehouse: ClickHouseWriter) -> None:
        self._topic = settings.topic
        self._consumer = consumer
        self._warehouse = warehouse
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

    def of(self, topic_id: UUID, partitions: Sequence[int]) -> dict[int, LedgerEnd]:
        """Where the books of these partitions end, so where reading goes on.

        Raises:
            UnknownOutcomeError: Broker (BrokerAwayError) or ClickHouse is away; the same call may succeed later.
            SinkError: Records that were never read are gone from the topic.
        """
        tails = self._warehouse.tails(topic_id=topic_id)
        places = {}
        for partition in partitions:
            low = self._low_watermark(partition)
            tail = tails.get(partition) or LedgerEnd(end=low - 1, line_first=None)
            if tail.end + 1 < low:
                raise SinkError(
                    f"partition {partition}: offsets {tail.end + 1} to {low - 1} were deleted by the broker before "
                    "any sink read them: those events are lost, and the topic's retention is shorter than the outage. "
                    "`auditstream accept-loss` enters them into the books as lost, and the sink can go on"
                )
            places[partition] = tail
        return places

    def fencing_time(self) -> int:
        """ClickHouse's clock, nanoseconds since 1970.

        Raises:
            UnknownOutcomeError: ClickHouse is away.
        """
        return self._warehouse.fencing_time()

    def _low_watermark(self, partition: int) -> int:
        try:
            low, _high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=BROKER_SECONDS
            )
        except KafkaException as error:
            raise BrokerAwayError(f"broker: no watermarks of partition {partition}: {error}") from error
        return low
