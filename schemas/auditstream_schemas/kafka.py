"""Kafka: the id of a topic, the errors that end a consumer, and the settings of a consumer group."""

from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from auditstream_schemas.errors import SettingsError

BROKER_SECONDS = 10
"""Longest wait for an answer of the broker."""

_FATAL_CODES = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError._FATAL,
    # With "auto.offset.reset": "error": the offsets to read are gone from the topic.
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
}


def topic_id(admin: AdminClient, topic: str) -> UUID | None:
    """The id that the broker gave a topic when it was created (KIP-516); None if there is no such topic.

    Blocks for at most `BROKER_SECONDS`.

    Raises:
        KafkaException: The broker is unreachable.
        TimeoutError: The broker does not answer.
        SettingsError: The broker is too old: it gives topics no id.
    """
    descriptions = admin.describe_topics(TopicCollection([topic]), request_timeout=BROKER_SECONDS)
    try:
        id = descriptions[topic].result(BROKER_SECONDS).topic_id
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise
    if id is None:
        raise SettingsError(f"the broker gives topic {topic} no id: auditstream needs Kafka 2.8 or newer")
    mask = (1 << 64) - 1
    return UUID(int=(id.get_most_significant_bits() & mask) << 64 | id.get_least_significant_bits() & mask)


def fatal_fault(error: KafkaError, topic: str) -> str:
    """The message for an error that an operator must fix; empty if a later poll may return records."""
    if error.code() not in _FATAL_CODES:
        return ""
    fix = "; run `auditstream topics`" if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART else ""
    return f"topic {topic}: {error.str()}{fix}"


def group_settings(group: str, *, session_timeout_ms: int, protocol: str = "classic") -> dict[str, Any]:
    """The librdkafka settings of a member of a consumer group that commits its offsets itself.

    ``session_timeout_ms`` is the time without a heartbeat after which the member loses its partitions. It is for the
    protocol ``classic``; with the protocol ``consumer`` (KIP-848) the broker sets it.
    """
    settings = {
        "group.id": group,
        "group.protocol": protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "fetch.wait.max.ms": 100,
    }
    if protocol == "classic":
        settings |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_timeout_ms,
            "heartbeat.interval.ms": max(100, session_timeout_ms // 10),
        }
    return settings
