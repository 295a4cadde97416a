"""The Kafka consumer as the sink wants it, and which of the broker's errors end it."""

import logging

from confluent_kafka import KafkaError

from auditstream_schemas.errors import SinkError
from auditstream_schemas.kafka import fatal_fault, group_settings
from auditstream_sink.settings import SinkSettings

_STATISTICS_MS = 1000
"""How often librdkafka tells whether a broker is there again; it tells by itself when none is."""

_FETCHED_AHEAD_KB = 8 * 1024
"""What librdkafka may hold of records that nobody took yet; small ones take as much again."""

_FETCH_BYTES = 6 * 1024 * 1024
"""What one answer of a broker holds at most, but for a single larger batch: it is in memory whole beside the records
that it is made into."""

_FETCH_AGAIN_MS = 20
"""How soon it fetches on when it held that much; its default of a second empties the queue and starves the loop."""

_logger = logging.getLogger("auditstream.sink")


def consumer_settings(settings: SinkSettings) -> dict[str, object]:
    """Settings for librdkafka."""
    return {
        "queued.max.messages.kbytes": _FETCHED_AHEAD_KB,
        "fetch.max.bytes": _FETCH_BYTES,
        "fetch.queue.backoff.ms": _FETCH_AGAIN_MS,
        **settings.librdkafka_client("sink"),
        **group_settings(
            settings.group, session_timeout_ms=settings.session_timeout_ms, protocol=settings.group_protocol
        ),
        # Offsets that are gone must be seen, not skipped or read again in silence.
        "auto.offset.reset": "error",
        "statistics.interval.ms": _STATISTICS_MS,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }


def raise_if_fatal(error: KafkaError, topic: str) -> None:
    """Take note of what a poll said instead of a record.

    Raises:
        SinkError: No poll will give records before a person did something.
    """
    if fault := fatal_fault(error, topic):
        raise SinkError(fault)
    if error.code() != KafkaError._PARTITION_EOF:
        _logger.info("broker: %s", error.str())
