"""Looks up where to read on: one past the end of the ledger, or at the start of the topic."""

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
    """The broker is away or has answered with an error; the same call may succeed later."""


class Positions:
    """Looks positions up; every call asks the broker or ClickHouse and blocks on it."""

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
