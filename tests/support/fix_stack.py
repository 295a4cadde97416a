"""The pytest plugin that gives tests a whole stack, and each test a corner of its own in it.

``--backend`` chooses what the stack is made of: the local stack (default), the local stack on Apache Kafka
from Maven Central, or containers. A backend that this machine cannot run skips, with the reason.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient
from typed_settings.types import SecretStr

from auditstream_local.clickhouse_config import PASSWORD
from auditstream_local.endpoints import Endpoints
from auditstream_local.stack import LocalStack
from auditstream_ops.clickhouse import connect
from auditstream_ops.deploy.migrate import migrate
from auditstream_ops.deploy.topics import TopicPlan, create_topics, register_schema
from auditstream_schemas.settings import ClickHouseSettings, KafkaSettings, RegistrySettings
from auditstream_storage.grants import ROLES, role_named, to_sql, user_sql
from tests.support.containers import container_stack, missing_engine
from tests.support.kafka_cluster import KafkaCluster, missing_tools

BACKENDS = ("local", "kafka", "docker")
# As many tenants exist at once; the rights of each are in users.xml.
DATABASES = tuple(f"t{number:02}" for number in range(30))
_free = deque(DATABASES)
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
        env: AUDITSTREAM_* variables that point a command at all of these, as the ClickHouse user of operators.
    """

    endpoints: Endpoints
    topic: str
    dlq_topic: str
    database: str
    group: str
    env: dict[str, str]

    def env_of(self, role: str) -> dict[str, str]:
        """The variables with the ClickHouse user of a role."""
        return {**self.env, **credentials(role)}

    def clickhouse(self, role: str) -> ClickHouseSettings:
        """Settings with the ClickHouse user of a role."""
        return clickhouse_settings(self.endpoints, self.database, role)

    def administrator(self) -> Client:
        """A connection of the user that may do everything, for what a test prepares and inspects."""
        return connect(
            ClickHouseSettings(clickhouse_url=self.endpoints.clickhouse_url, clickhouse_database=self.database)
        )


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
        yield parts.enter_context(local_stack(directory, bootstrap_servers)).endpoints


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


def local_stack(directory: Path, bootstrap_servers: str | None = None) -> LocalStack:
    """A local stack whose ClickHouse users have their rights in the databases of tenants."""
    return LocalStack(directory, bootstrap_servers=bootstrap_servers, databases=DATABASES)


def credentials(role: str) -> dict[str, str]:
    """The variables with the ClickHouse user of a role."""
    return {"AUDITSTREAM_CLICKHOUSE_USER": role_named(role).user, "AUDITSTREAM_CLICKHOUSE_PASSWORD": PASSWORD}


def clickhouse_settings(endpoints: Endpoints, database: str, role: str) -> ClickHouseSettings:
    """Settings with the ClickHouse user of a role."""
    return ClickHouseSettings(
        clickhouse_url=endpoints.clickhouse_url,
        clickhouse_database=database,
        clickhouse_user=role_named(role).user,
        clickhouse_password=SecretStr(PASSWORD),
    )


@contextmanager
def database_name() -> Iterator[str]:
    """The name of a database in which the users have their rights, until the block is left.

    The local ClickHouse reads its users and their rights once, when it starts. So names are used again.
    """
    name = _free.popleft()
    try:
        yield name
    finally:
        _free.append(name)


def create_users(client: Client, database: str) -> None:
    """Create roles and users, on a server where users.xml is not ours."""
    for role in ROLES:
        for statement in (*to_sql(database, [role]), user_sql(role, PASSWORD)):
            client.command(statement, use_database=False)


def prepared_tenant(endpoints: Endpoints, *, partitions: int = 3, replication: int = 1) -> Tenant:
    """A tenant on a stack that a test started itself; `delete_tenant` removes it, if anybody does."""
    tenant = _tenant(endpoints)
    _prepare(tenant, TopicPlan(partitions=partitions, replication=replication))
    return tenant


def _tenant(endpoints: Endpoints) -> Tenant:
    topic = f"t{uuid.uuid4().hex[:12]}.events"
    database = _free.popleft()
    env = {
        **endpoints.env(),
        **credentials("operator"),
        "AUDITSTREAM_TOPIC": topic,
        "AUDITSTREAM_DEAD_LETTER_TOPIC": f"{topic}.dlq",
        "AUDITSTREAM_CLICKHOUSE_DATABASE": database,
        "AUDITSTREAM_GROUP": f"{topic}-sink",
        "AUDITSTREAM_SESSION_TIMEOUT_MS": str(_SESSION_TIMEOUT_MS),
    }
    return Tenant(
        endpoints=endpoints, topic=topic, dlq_topic=f"{topic}.dlq", database=database, group=f"{topic}-sink", env=env
    )


def _prepare(tenant: Tenant, plan: TopicPlan) -> None:
    create_topics(_kafka(tenant), plan, dead_letter_topic=tenant.dlq_topic)
    register_schema(RegistrySettings(schema_registry_url=tenant.endpoints.registry_url), tenant.topic)
    prepare_database(tenant.endpoints, tenant.database)


def prepare_database(endpoints: Endpoints, database: str) -> None:
    """Create a database as the migrator does, without what an earlier user of the name left."""
    administrator = connect(ClickHouseSettings(clickhouse_url=endpoints.clickhouse_url))
    administrator.command(f"DROP DATABASE IF EXISTS {database} SYNC")
    if not administrator.command("SELECT count() FROM system.users WHERE storage = 'users_xml' AND name != 'default'"):
        create_users(administrator, database)
    administrator.close()
    # The client chooses its database when it connects, and this one is not there yet.
    client = connect(replace(clickhouse_settings(endpoints, database, "migrator"), clickhouse_database="default"))
    migrate(client, database)
    client.close()


def delete_tenant(tenant: Tenant) -> None:
    """Delete a tenant's topics and database."""
    admin = AdminClient(_kafka(tenant).librdkafka_client("tenant"))
    for future in admin.delete_topics([tenant.topic, tenant.dlq_topic]).values():
        future.result(30)
    client = tenant.administrator()
    client.command(f"DROP DATABASE IF EXISTS {tenant.database} SYNC")
    client.close()
    _free.append(tenant.database)


def _kafka(tenant: Tenant) -> KafkaSettings:
    return KafkaSettings(kafka_bootstrap_servers=tenant.endpoints.bootstrap_servers, topic=tenant.topic)
