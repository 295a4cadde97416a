"""A stack for one benchmark, with temporary topics and databases on it."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient

from auditstream_local.endpoints import Endpoints
from auditstream_local.stack import LocalStack
from auditstream_ops.clickhouse import connect
from auditstream_ops.deploy.migrate import migrate
from auditstream_ops.deploy.topics import TopicPlan, create_topics, register_schema
from auditstream_producer import ProducerSettings
from auditstream_schemas.settings import ClickHouseSettings, KafkaSettings, RegistrySettings
from tests.support.kafka_cluster import KafkaCluster

Broker = Literal["local", "kafka"]

PARTITIONS = TopicPlan().partitions
_DRAIN_SECONDS = 120
_SESSION_TIMEOUT_MS = 6000
"""Tansu lets the first member of a group wait for half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic made for benchmarks.

    Attributes:
        name: Of the event topic; its dead letters have their default name.
        schema_id: Schema id of the event's schema.
    """

    name: str
    schema_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A running stack.

    Attributes:
        broker: Tansu, or Apache Kafka.
        endpoints: Addresses of its servers.
        clickhouse_pid: Process of the engine.
        broker_pid: Process of the broker.
        scratch: A directory for files, on the disk that the engine writes to.
    """

    broker: Broker
    endpoints: Endpoints
    clickhouse_pid: int
    broker_pid: int
    scratch: Path

    @contextmanager
    def database(self) -> Iterator[str]:
        """A migrated, empty database, dropped at the end."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        with self.client() as client:
            migrate(client, name)
            try:
                yield name
            finally:
                client.command(f"DROP DATABASE {name} SYNC", use_database=False)

    @contextmanager
    def topic(self) -> Iterator[Topic]:
        """An empty topic with its schema and its dead letters, deleted at the end."""
        name = f"bench.{uuid.uuid4().hex[:12]}"
        kafka = KafkaSettings(kafka_bootstrap_servers=self.endpoints.bootstrap_servers, topic=name)
        create_topics(kafka, TopicPlan(), dead_letter_topic=f"{name}.dlq")
        schema_id = register_schema(RegistrySettings(schema_registry_url=self.endpoints.registry_url), name)
        try:
            yield Topic(name=name, schema_id=schema_id)
        finally:
            admin = AdminClient(kafka.librdkafka_client("bench"))
            for future in admin.delete_topics([name, f"{name}.dlq"]).values():
                future.result(60)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A connection to the engine."""
        client = connect(ClickHouseSettings(clickhouse_url=self.endpoints.clickhouse_url))
        try:
            yield client
        finally:
            client.close()

    def producer(self, topic: Topic) -> ProducerSettings:
        """Settings of a producer."""
        return ProducerSettings(
            kafka_bootstrap_servers=self.endpoints.bootstrap_servers,
            schema_registry_url=self.endpoints.registry_url,
            topic=topic.name,
        )

    def env(self, topic: Topic, database: str, **settings: object) -> dict[str, str]:
        """The environment that points a consumer at a topic and a database, in a group of its own."""
        values = {
            "topic": topic.name,
            "clickhouse_database": database,
            "group": f"bench-{uuid.uuid4().hex[:12]}",
            "session_timeout_ms": _SESSION_TIMEOUT_MS,
            # It is stopped while two batches are in flight; a busy machine may need long for them.
            "drain_seconds": _DRAIN_SECONDS,
            **settings,
        }
        variables = {f"AUDITSTREAM_{name.upper()}": str(value) for name, value in values.items()}
        return {**self.endpoints.env(), **variables}


@contextmanager
def site(broker: Broker, scratch: Path) -> Iterator[Site]:
    """Start a stack; it is stopped at the end."""
    directory = scratch / f"stack-{broker}"
    directory.mkdir(parents=True)
    with ExitStack() as servers:
        cluster = servers.enter_context(KafkaCluster(directory)) if broker == "kafka" else None
        stack = servers.enter_context(
            LocalStack(directory, bootstrap_servers=cluster.bootstrap_servers if cluster else None)
        )
        yield Site(
            broker=broker,
            endpoints=stack.endpoints,
            clickhouse_pid=stack.server("clickhouse").pid,
            broker_pid=cluster.brokers[0].pid if cluster else stack.server("kafka").pid,
            scratch=directory,
        )


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has taken so far, user and system."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
