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
    # The partitioner of the Java client: a re-send from any SDK lands where the first one went.
    "partitioner": "murmur2_random",
    # A misspelt topic is an error, not a new topic that no sink reads.
    "allow.auto.create.topics": "false",
}
_TUNING = {
    "compression.type": "lz4",
    "linger.ms": "10",
    "log.connection.close": "false",
    # The producer logs nothing of the brokers it merely looks for every few seconds.
    "reconnect.backoff.max.ms": "5000",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings(KafkaSettings, RegistrySettings):
    """How events are checked, kept and delivered."""

    catalog_mode: CatalogMode = setting(
        "known",
        "Payloads held against the catalog: 'off', 'known' (payloads of listed actions), or 'strict' "
        "(the same, and other actions are refused).",
    )
    producer_queue_events: int = setting(
        100_000, "Events that may wait in memory for the broker; one more is refused with QueueFullError."
    )
    producer_queue_bytes: int = setting(134_217_728, "Bytes that the waiting events may hold together, encoded.")
    producer_delivery_timeout: float = setting(
        3600.0, "Seconds that an event may wait for the broker before it is reported as failed."
    )
    producer_close_timeout: float = setting(10.0, "Seconds that closing waits for the events still in the queue.")

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            SettingsError: A number is out of its range, or the catalog mode is unknown.
        """
        if self.catalog_mode not in {"off", "known", "strict"}:
            raise SettingsError(f"catalog_mode is {self.catalog_mode!r}: write off, known or strict")
        if self.producer_queue_events < 1 or self.producer_queue_bytes < 1:
            raise SettingsError("producer_queue_events and producer_queue_bytes must be 1 or more")
        if not _MIN_DELIVERY_SECONDS <= self.producer_delivery_timeout <= _MAX_DELIVERY_SECONDS:
            raise SettingsError(
                f"producer_delivery_timeout is {self.producer_delivery_timeout}: "
                f"write seconds, at least {_MIN_DELIVERY_SECONDS} and at most {_MAX_DELIVERY_SECONDS}"
            )
        if not 0 <= self.producer_close_timeout < float("inf"):
            raise SettingsError(f"producer_close_timeout is {self.producer_close_timeout}: write seconds, 0 or more")

    @property
    def subject(self) -> str:
        """Name under which the registry keeps the schema of the topic's events."""
        return f"{self.topic}-value"

    def librdkafka_producer(self) -> dict[str, str]:
        """Return librdkafka's settings for the producer.

        ``kafka_config_file`` may tune, but not weaken what the producer promises.

        Raises:
            SettingsError: The file cannot be read, is malformed, or sets what the producer relies on.
        """
        shared = self.librdkafka()
        fixed = {
            **_GUARANTEES,
            # The producer's own queue bounds events and bytes, before the schema is known as after.
            "queue.buffering.max.messages": "0",
            "queue.buffering.max.kbytes": "2147483647",
            "message.timeout.ms": str(int(self.producer_delivery_timeout * 1000)),
        }
        for key, value in fixed.items():
            if shared.get(key, value) != value:
                raise SettingsError(
                    f"{self.kafka_config_file} sets {key}={shared[key]}, but the producer relies on {value}: "
                    "take the line out"
                )
        return {**_TUNING, **shared, **fixed}
