"""The pytest plugin that gives tests a whole stack, and each test a corner of its own in it.

``--backend`` chooses what the stack is made of: the local stack (default), the local stack on Apache Kafka
from Maven Central, or containers. A backend that this machine cannot run skips, with the reason.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from auditstream_local.endpoints import Endpoints
from auditstream_local.kafka import KafkaCluster, missing_tools
from auditstream_local.stack import LocalStack
from auditstream_ops.clickhouse import connect
from auditstream_ops.deploy.migrate import migrate
from auditstream_ops.deploy.topics import TopicPlan, create_topics, register_schema
from auditstream_schemas.settings import ClickHouseSettings, KafkaSettings, RegistrySettings
from tests.support.containers import container_stack, missing_engine

BACKENDS = ("local", "kafka", "docker")
# Tansu makes a group's member wait for half of it; heartbeats come ten times as often.
_SESSION_TIMEOUT_MS = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A test's own topic, dead letters, database and consumer group.

    Attributes:
        endpoints: The stack that all tests of a run share.
        topic: Name of the event topic.
        dlq_topic: Name of the dead-letter topic, which has one partition.
        database: Name of the migrated ClickHouse database.
        group: Name of the consumer group.
        env: AUDITSTREAM_* variables that point a command at all of these.
    """

    endpoints: Endpoints
    topic: str
    dlq_topic: str
    database: str
    group: str
    env: dict[str, str]


NewTenant = Callable[..., Tenant]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=BACKENDS, default="local", help="what the stack under test is made of")


def pytest_report_header(config: pytest.Config) -> str:
    return f"backend: {config.getoption('--backend')}"


@pytest.fixture(scope="session")
def backend(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("--backend"))


@pytest.fixture(scope="session")
def stack(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Where the stack of this run is reached; it is started for the first test that asks."""
    directory = tmp_path_factory.mktemp("stack")
    with ExitStack() as parts:
        if backend == "docker":
            if reason := missing_engine():
                pytest.skip(f"--backend docker: {reason}")
            yield parts.enter_context(container_stack())
            return
        bootstrap_servers = None
        if backend == "kafka":
            if missing := missing_tools():
                pytest.skip(f"--backend kafka: this machine lacks {', '.join(missing)}")
            bootstrap_servers = parts.enter_context(KafkaCluster(directory)).bootstrap_servers
        yield parts.enter_context(_local(directory, bootstrap_servers)).endpoints


@pytest.fixture
def new_tenant(stack: Endpoints) -> Iterator[NewTenant]:
    """Makes tenants; ``new_tenant(partitions=N)``. All it made is deleted at the end of the test."""
    made: list[Tenant] = []

    def make(*, partitions: int = 3) -> Tenant:
        tenant = prepared_tenant(stack, partitions=partitions)
        made.append(tenant)
        return tenant

    yield make
    for tenant in made:
        delete_tenant(tenant)


@pytest.fixture
def tenant(new_tenant: NewTenant) -> Tenant:
    """A tenant whose event topic has three partitions."""
    return new_tenant()


def _local(directory: Path, bootstrap_servers: str | None) -> LocalStack:
    return LocalStack(directory, bootstrap_servers=bootstrap_servers)


def prepared_tenant(endpoints: Endpoints, *, partitions: int = 3, replication: int = 1) -> Tenant:
    """A tenant on a stack that a test started itself; `delete_tenant` removes it, if anybody does."""
    tenant = _tenant(endpoints)
    _prepare(tenant, TopicPlan(partitions=partitions, replication=replication))
    return tenant


def _tenant(endpoints: Endpoints) -> Tenant:
    name = f"t{uuid.uuid4().hex[:12]}"
    topic = f"{name}.events"
    env = {
        **endpoints.env(),
        "AUDITSTREAM_TOPIC": topic,
        "AUDITSTREAM_DEAD_LETTER_TOPIC": f"{topic}.dlq",
        "AUDITSTREAM_CLICKHOUSE_DATABASE": name,
        "AUDITSTREAM_GROUP": f"{name}-sink",
        "AUDITSTREAM_SESSION_TIMEOUT_MS": str(_SESSION_TIMEOUT_MS),
    }
    return Tenant(
        endpoints=endpoints, topic=topic, dlq_topic=f"{topic}.dlq", database=name, group=f"{name}-sink", env=env
    )


def _prepare(tenant: Tenant, plan: TopicPlan) -> None:
    create_topics(_kafka(tenant), plan, dead_letter_topic=tenant.dlq_topic)
    register_schema(RegistrySettings(schema_registry_url=tenant.endpoints.registry_url), tenant.topic)
    client = connect(ClickHouseSettings(clickhouse_url=tenant.endpoints.clickhouse_url))
    migrate(client, tenant.database)
    client.close()


def delete_tenant(tenant: Tenant) -> None:
    """Delete a tenant's topics and database."""
    admin = AdminClient(_kafka(tenant).librdkafka_client("tenant"))
    for future in admin.delete_topics([tenant.topic, tenant.dlq_topic]).values():
        future.result(30)
    client = connect(ClickHouseSettings(clickhouse_url=tenant.endpoints.clickhouse_url))
    client.command(f"DROP DATABASE IF EXISTS {tenant.database} SYNC")
    client.close()


def _kafka(tenant: Tenant) -> KafkaSettings:
    return KafkaSettings(kafka_bootstrap_servers=tenant.endpoints.bootstrap_servers, topic=tenant.topic)
