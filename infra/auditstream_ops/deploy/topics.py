"""The deploy step that creates the topics and registers the schema. Services do neither at run time."""

from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_schemas.errors import OperationError
from auditstream_schemas.registry import RegistryClient
from auditstream_schemas.settings import KafkaSettings, RegistrySettings, setting
from auditstream_sink import MAX_DEAD_LETTER_BYTES

COMPATIBILITY = "BACKWARD_TRANSITIVE"

_CREATE_TIMEOUT_SECONDS = 30


# No slots: the command adds these fields to other settings.
@dataclass(frozen=True, kw_only=True)
class TopicPlan:
    """The sizes and the retention of new topics."""

    partitions: int = setting(12, "Partitions of a new event topic.")
    replication: int = setting(1, "Copies of each partition of a new topic; 3 in production.")
    retention_hours: int = setting(
        7 * 24, "How long the broker keeps events. If ClickHouse is away for longer, events are lost."
    )
    dead_letter_retention_hours: int = setting(
        90 * 24, "How long the broker keeps dead letters, which a person resolves."
    )
    request_partitions: int = setting(
        12, "Partitions of a new topic of export requests: the maximum number of exporters at work."
    )


def create_topics(
    kafka: KafkaSettings, plan: TopicPlan, *, dead_letter_topic: str, request_topic: str | None = None
) -> list[str]:
    """Create the topics that are missing: events, dead letters, export requests. Return the names of those created.

    Blocks up to 30 seconds on the broker.

    Raises:
        OperationError: The broker is not reachable, or refuses.
    """
    topics = [
        _topic(kafka.topic, plan.partitions, plan, plan.retention_hours),
        # A dead letter is a whole record with further headers.
        _topic(dead_letter_topic, 1, plan, plan.dead_letter_retention_hours, max_message_bytes=MAX_DEAD_LETTER_BYTES),
    ]
    if request_topic is not None:
        topics.append(_topic(request_topic, plan.request_partitions, plan, plan.retention_hours))
    admin = AdminClient(kafka.librdkafka_client("topics"))
    created = []
    for name, future in admin.create_topics(topics, operation_timeout=_CREATE_TIMEOUT_SECONDS).items():
        try:
            future.result(_CREATE_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            raise OperationError(
                f"cannot create topic {name} on {kafka.kafka_bootstrap_servers}: {error.args[0].str()}"
            ) from error
        except TimeoutError as error:
            raise OperationError(
                f"no answer from {kafka.kafka_bootstrap_servers} within {_CREATE_TIMEOUT_SECONDS} s: "
                "is AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS right, and the broker up?"
            ) from error
        created.append(name)
    return created


def register_schema(registry: RegistrySettings, topic: str) -> int:
    """Register the event's schema for the topic, set its compatibility, and return the schema id.

    Raises:
        RegistryError: The registry refuses, or is not reachable (RegistryUnavailableError).
    """
    client = RegistryClient(registry.schema_registry_url, ca_file=registry.schema_registry_ca_file)
    subject = f"{topic}-value"
    schema_id = client.register(subject, SCHEMA_JSON)
    client.set_compatibility(subject, COMPATIBILITY)
    return schema_id


def _topic(
    name: str, partitions: int, plan: TopicPlan, retention_hours: int, *, max_message_bytes: int = 1_048_588
) -> NewTopic:
    return NewTopic(
        name,
        num_partitions=partitions,
        replication_factor=plan.replication,
        config={
            "retention.ms": str(retention_hours * 3_600_000),
            "cleanup.policy": "delete",
            "max.message.bytes": str(max_message_bytes),
            "min.insync.replicas": str(max(1, plan.replication - 1)),
        },
    )
