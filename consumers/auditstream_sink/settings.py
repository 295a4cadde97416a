"""The settings of the sink."""

import dataclasses
from typing import Literal

from auditstream_schemas.settings import ClickHouseSettings, KafkaSettings, RegistrySettings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeadLetterSettings(KafkaSettings, RegistrySettings):
    """Topic of the refused records."""

    dead_letter_topic: str = setting("", "Topic of refused records; if empty, the topic's name with .dlq.")

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic's name."""
        return self.dead_letter_topic or f"{self.topic}.dlq"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SinkSettings(DeadLetterSettings, ClickHouseSettings):
    """Topic, database, and size of a batch."""

    group: str = setting("auditstream-sink", "Consumer group; sinks of one group share the partitions.")
    flush_rows: int = setting(200_000, "Write a batch when it has this many records.")
    flush_bytes: int = setting(48 * 1024 * 1024, "Write a batch when its records have this many bytes.")
    flush_seconds: float = setting(
        1.0, "Write a batch when its first record is this old and no other batch is being written."
    )
    group_protocol: Literal["classic", "consumer"] = setting(
        "classic", "Protocol by which the group shares partitions: 'classic', or 'consumer' (KIP-848, Kafka 4)."
    )
    session_timeout_ms: int = setting(
        45_000, "After this time without a heartbeat the group gives the sink's partitions to another (classic)."
    )
    drain_seconds: float = setting(20.0, "Time to finish batches when partitions are revoked or the sink is stopped.")
    dead_letter_limit: float = setting(
        0.5,
        "Stop if more than this share of the last dead_letter_window records would be dead letters; 1 sets no limit.",
    )
    dead_letter_window: int = setting(
        10_000, "Number of records that dead_letter_limit is a share of; or the records of a batch, if that is larger."
    )
    health_address: str = setting(
        "", "Serve /healthz, /readyz and /metrics on this host:port. ':port' is on 127.0.0.1; port 0 is a free port."
    )
    clickhouse_timeout_seconds: int = setting(
        120, "If ClickHouse does not answer within this time, the outcome of the statement is unknown."
    )
