"""The sink: Kafka to ClickHouse; no event lost, none visible twice, every offset in the books."""

from auditstream_sink.settings import DeadLetterSettings, SinkSettings
from auditstream_sink.sink import Sink
from auditstream_storage.ledger import LedgerLine, Totals

__all__ = ["DeadLetterSettings", "LedgerLine", "Sink", "SinkSettings", "Totals"]
