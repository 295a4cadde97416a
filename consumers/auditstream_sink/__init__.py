"""The sink: Kafka to ClickHouse; no event lost, none visible twice, every offset in the books."""

from auditstream_sink.settings import SinkSettings
from auditstream_sink.sink import Sink, Totals

__all__ = ["Sink", "SinkSettings", "Totals"]
