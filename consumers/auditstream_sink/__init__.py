"""The sink: Kafka to ClickHouse; no event lost, none visible twice, every offset in the ledger."""

from auditstream_sink.settings import DeadLetterSettings, SinkSettings
from auditstream_sink.sink import Sink

__all__ = ["DeadLetterSettings", "Sink", "SinkSettings"]
