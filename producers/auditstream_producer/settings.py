"""Settings of the producer."""

import dataclasses
from typing import Literal

from auditstream_schemas.errors import SettingsError
from auditstream_schemas.settings import KafkaSettings, RegistrySettings, setting

CatalogMode = Literal["off", "known", "strict"]

_MIN_DELIVERY_SECONDS = 0.1
_MAX_DELIVERY_SECONDS = 2_147_483
_GUARANTEES = {
    "acks": "all",
    "enable.idempotence": "true",
    # The partitioner of the Java client, so that every SDK sends an event id to the same partition.
    "partitioner": "murmur2_random",
    # A misspelt topic is then an error, not a new topic that no sink reads.
    "allow.auto.create.topics": "false",
}
_TUNING = {
    "client.id": "auditstream-producer",
    "compression.type": "lz4",
    "linger.ms": "10",
    "log.connection.close": "false",
    # While a broker is down, librdkafka then tries to connect at least every five seconds.
    "reconnect.backoff.max.ms": "5000",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings(KafkaSettings, RegistrySettings):
    """How events are checked, queued and delivered."""

    catalog_mode: CatalogMode = setting(
        "known",
        "Check of payloads against the catalog: 'off', 'known' (payloads of listed actions), or 'strict' "
        "(as 'known', and other actions are refused).",
    )
    producer_queue_events: int = setting(
        100_000, "Most events that wait in memory for the broker; the next one is refused with QueueFullError."
    )
    producer_queue_bytes: int = setting(134_217_728, "Most bytes that the waiting events have together, encoded.")
    producer_delivery_timeout: float = setting(
        3600.0, "Seconds that an event waits for the broker before it is reported as failed."
    )
    producer_close_timeout: float = setting(10.0, "Seconds that closing waits for the events still in the queue.")

    def __post_init__(self) -> None:
        if self.catalog_mode not in {"off", "known", "strict"}:
            raise SettingsError(f"catalog_mode is {self.catalog_mode!r}: write off, known or strict")
        if self.producer_queue_events < 1 or self.producer_queue_bytes < 1:
            raise SettingsError("producer_queue_events and producer_queue_bytes must be 1 or more")
        if not _MIN_DELIVERY_SECONDS <= self.producer_delivery_timeout <= _MAX_DELIVERY_SECONDS:
            fix = f"write seconds, at least {_MIN_DELIVERY_SECONDS} and at most {_MAX_DELIVERY_SECONDS}"
            raise SettingsError(f"producer_delivery_timeout is {self.producer_delivery_timeout}: {fix}")
        if not 0 <= self.producer_close_timeout < float("inf"):
            raise SettingsError(f"producer_close_timeout is {self.producer_close_timeout}: write seconds, 0 or more")

    @property
    def subject(self) -> str:
        """Name under which the registry keeps the schema of the topic's events."""
        return f"{self.topic}-value"

    def librdkafka_producer(self) -> dict[str, str]:
        """The librdkafka settings of the producer.

        ``kafka_config_file`` may tune the producer. It may not change a setting that the promises depend on.

        Raises:
            SettingsError: The file cannot be read, is malformed, or changes such a setting.
        """
        shared = self.librdkafka()
        fixed = {
            **_GUARANTEES,
            # No limit in librdkafka: the producer's own limits count all events, with and without a schema id.
            "queue.buffering.max.messages": "0",
            "queue.buffering.max.kbytes": "2147483647",
            "message.timeout.ms": str(int(self.producer_delivery_timeout * 1000)),
        }
        for key, value in fixed.items():
            if shared.get(key, value) != value:
                text = f"{self.kafka_config_file} sets {key}={shared[key]}"
                raise SettingsError(f"{text}, but the producer needs {value}: remove the line")
        return {**_TUNING, **shared, **fixed}
