"""Each ClickHouse user can do its own part's work and nothing else."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from typed_settings.types import SecretStr

from auditstream_local.clickhouse_config import EXAMPLE_SCOPE
from auditstream_ops.clickhouse import connect
from auditstream_schemas.errors import OperationError
from auditstream_schemas.event import Entity
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_storage.grants import ROLES, SCOPE_ANALYST
from tests.support.events import make_event
from tests.support.fix_stack import Tenant, database_name
from tests.support.stored_events import store

# A missing right is 497. The setting readonly is checked first and refuses with 164.
DENIED = re.compile(r"code: (164|497)\b")
TABLES = ("event_log", "ledger", "copies", "api_tokens", "export_jobs", "export_cancels", "schema_migrations")
# Tables that a role may insert into, beside the sink's own stages.
WRITES = {
    "sink": {"event_log", "ledger", "copies"},
    "exporter": {"export_jobs", "export_cancels"},
    "page": {"export_jobs", "export_cancels"},
    "analyst": set(),
    "operator": {"ledger", "api_tokens", "export_jobs", "export_cancels"},
    "migrator": {"schema_migrations"},
}
READS = {
    "sink": {"event_log", "ledger", "copies"},
    "exporter": {"events", "exports", "ledger", "copies", "export_jobs", "export_cancels"},
    "page": {"events", "exports", "event_log", "ledger", "api_tokens", "export_jobs"},
    "analyst": {"events"},
    "operator": {"events", "exports", *TABLES},
    "migrator": {"events", "exports", *TABLES},
}


def connected(tenant: Tenant, settings: ClickHouseSettings) -> Client:
    """A connection on which names without a database are those of the tenant."""
    client = connect(settings)
    client.database = tenant.database
    return client


def allowed(client: Client, sql: str) -> bool:
    try:
        client.command(sql)
    except DatabaseError as error:
        if DENIED.search(str(error)):
            return False
        raise
    return True


@pytest.fixture(params=[role.name for role in ROLES])
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(tenant: Tenant, role: str) -> Iterator[Client]:
    with closing(connected(tenant, tenant.clickhouse(role))) as connection:
        yield connection


def test_a_role_reads_and_writes_its_own_tables_only(client: Client, role: str) -> None:
    assert {name for name in (*TABLES, "events", "exports") if allowed(client, f"SELECT * FROM {name}")} == READS[role]
    writes = {name for name in TABLES if allowed(client, f"INSERT INTO {name} SELECT * FROM {name} LIMIT 0")}
    # An INSERT ... SELECT needs the right to read, too.
    assert writes == WRITES[role] & READS[role]


def test_no_role_but_the_migrator_changes_or_drops_a_table(client: Client, role: str) -> None:
    alter = "ALTER TABLE ledger MODIFY COMMENT 'x'"
    assert allowed(client, alter) == (role == "migrator")
    for statement in (
        "DROP TABLE event_log",
        "TRUNCATE TABLE ledger",
        "ALTER TABLE event_log DELETE WHERE 1",
        "DROP TABLE api_tokens",
    ):
        assert not allowed(client, statement) or (role == "migrator" and statement.startswith("ALTER"))


def test_a_sink_makes_and_drops_its_own_stages_only(tenant: Tenant) -> None:
    with closing(connected(tenant, tenant.clickhouse("sink"))) as client:
        for name in ("stage_x", "status_x"):
            assert allowed(client, f"CREATE TABLE {name} (a Int8) ENGINE = Memory")
            assert allowed(client, f"DROP TABLE {name}")
        assert not allowed(client, "CREATE TABLE other (a Int8) ENGINE = Memory")
        assert not allowed(client, "CREATE TABLE stage_y (a Int8) ENGINE = MergeTree ORDER BY a")


def test_a_role_has_no_rights_in_another_database(tenant: Tenant, client: Client) -> None:
    with database_name() as name:
        other = f"{name}_other"
        with closing(tenant.administrator()) as administrator:
            administrator.command(f"CREATE DATABASE {other}")
            administrator.command(f"CREATE TABLE {other}.event_log (a Int8) ENGINE = Memory")
            try:
                assert not allowed(client, f"SELECT * FROM {other}.event_log")
            finally:
                administrator.command(f"DROP DATABASE {other} SYNC")


def test_a_wrong_password_is_refused(tenant: Tenant, role: str) -> None:
    settings = replace(tenant.clickhouse(role), clickhouse_password=SecretStr("wrong"))
    with pytest.raises(OperationError, match=f"for user auditstream_{role}"):
        connect(settings)


def test_a_row_policy_hides_other_scopes(tenant: Tenant, backend: str) -> None:
    if backend == "docker":
        pytest.skip("--backend docker: the example user with a row policy is in the local users.xml only")
    scopes = (Entity(id=EXAMPLE_SCOPE, type="organization"), Entity(id="globex", type="organization"), None)
    events = [make_event(number, scope=scope) for number, scope in enumerate(scopes)]
    store(tenant.clickhouse("operator"), events)
    with closing(connected(tenant, replace(tenant.clickhouse("analyst"), clickhouse_user=SCOPE_ANALYST))) as client:
        assert client.query("SELECT id FROM events").result_rows == [(events[0].id,)]
        assert client.command("SELECT count() FROM events WHERE scope_id != 'acme'") == 0
    with closing(connected(tenant, tenant.clickhouse("analyst"))) as client:
        assert client.command("SELECT count() FROM events") == 3


def test_a_condition_on_the_view_reaches_the_primary_key(tenant: Tenant) -> None:
    store(tenant.clickhouse("operator"), [make_event(number) for number in range(10)])
    with closing(connected(tenant, tenant.clickhouse("analyst"))) as client:
        plan = str(client.query("EXPLAIN indexes = 1 SELECT id FROM events WHERE scope_id = 'org-1'").result_rows)
    assert "PrimaryKey" in plan
    assert "tupleElement" in plan or "scope.id" in plan
