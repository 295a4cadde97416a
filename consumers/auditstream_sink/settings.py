"""What the sink can be told."""

import dataclasses
from typing import Literal

from auditstream_schemas.settings import ClickHouseSettings, KafkaSettings, RegistrySettings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeadLetterSettings(KafkaSettings, RegistrySettings):
    """Where refused records lie."""

    dead_letter_topic: str = setting("", "Topic of refused records; empty means the topic's name with .dlq.")

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic's name."""
        return self.dead_letter_topic or f"{self.topic}.dlq"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SinkSettings(DeadLetterSettings, ClickHouseSettings):
    """From which topic to which database, and how large a batch may grow."""

    group: str = setting("auditstream-sink", "Consumer group; sinks of one group share the partitions.")
    flush_rows: int = setting(200_000, "Write a batch when it holds so many records.")
    flush_bytes: int = setting(48 * 1024 * 1024, "Write a batch when its records hold so many bytes.")
    flush_seconds: float = setting(
        1.0, "Write a batch when its first record has waited so long and no other is being written."
    )
    group_protocol: Literal["classic", "consumer"] = setting(
        "classic", "How the group shares partitions: 'classic', or 'consumer' (KIP-848, Kafka 4)."
    )
    session_timeout_ms: int = setting(
        45_000, "After so long without a heartbeat the group gives this sink's partitions to another (classic)."
    )
    drain_seconds: float = setting(20.0, "On a revoke or a stop: time to finish the batch in hand.")
    dead_letter_limit: float = setting(
        0.5,
        "Stop, rather than dead-letter more than this share of the last dead_letter_window records; 1 sets no limit.",
    )
    dead_letter_window: int = setting(
        10_000, "Records, or those of one batch if more, that dead_letter_limit is a share of."
    )
    health_address: str = setting(
        "", "Serve /healthz, /readyz and /metrics on host:port; :port is on 127.0.0.1, :0 on a free port there."
    )
    clickhouse_timeout_seconds: int = setting(120, "An answer that takes longer is an unknown outcome.")
