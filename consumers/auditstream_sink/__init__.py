"""The sink: Kafka to ClickHouse; no event lost, none visible twice, every offset in the ledger."""

from auditstream_sink.batch import record_headers
from auditstream_sink.dead_letters import (
    ERROR,
    MAX_DEAD_LETTER_BYTES,
    OMITTED,
    REASON,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    SOURCE_TOPIC_ID,
)
from auditstream_sink.settings import DeadLetterSettings, SinkSettings
from auditstream_sink.sink import Sink
from auditstream_sink.statements import FUTURE_DAYS

__all__ = [
    "ERROR",
    "FUTURE_DAYS",
    "MAX_DEAD_LETTER_BYTES",
    "OMITTED",
    "REASON",
    "SOURCE_OFFSET",
    "SOURCE_PARTITION",
    "SOURCE_TOPIC",
    "SOURCE_TOPIC_ID",
    "DeadLetterSettings",
    "Sink",
    "SinkSettings",
    "record_headers",
]
