"""Clients of ClickHouse's native protocol, with the rights of an analyst: clickhouse-driver and clickhouse-go."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from auditstream_schemas.event import AuditEvent
from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.pipeline import put_events, run_sink

GO_CLIENT = Path(__file__).parent / "go_client"
_BUILD_SECONDS = 240


@pytest.fixture
def events(tenant: Tenant) -> list[AuditEvent]:
    stored = [make_event(number) for number in range(20)]
    put_events(tenant, stored)
    assert run_sink(tenant).stored == 20
    return stored


def test_the_python_driver_reads_events_and_cannot_write(tenant: Tenant, events: list[AuditEvent]) -> None:
    host, _, port = tenant.endpoints.clickhouse_tcp.rpartition(":")
    settings = tenant.clickhouse("analyst")
    with Client(
        host,
        port=int(port),
        database=tenant.database,
        user=settings.clickhouse_user,
        password=str(settings.clickhouse_password),
    ) as client:
        rows = client.execute("SELECT action, id, actor, metadata FROM events ORDER BY occurred_at")
        assert [(action, id) for action, id, _, _ in rows] == [(event.action, event.id) for event in events]
        assert rows[0][2][:2] == (events[0].actor.id, events[0].actor.type)
        assert rows[0][3] == dict(events[0].metadata)
        for statement in ("TRUNCATE TABLE event_log", "SELECT * FROM ledger", "SELECT * FROM api_tokens"):
            with pytest.raises(ServerException) as refused:
                client.execute(statement)
            assert refused.value.code in {164, 497}


def test_the_go_client_reads_events(tenant: Tenant, events: list[AuditEvent], tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("the Go client needs go, which is not on PATH")
    program = tmp_path / "client"
    build = subprocess.run(
        ["go", "build", "-o", str(program), "."],
        cwd=GO_CLIENT,
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    if build.returncode != 0:
        pytest.skip(f"the Go client cannot be built here: {build.stderr.strip()[-300:]}")
    settings = tenant.clickhouse("analyst")
    env = {
        **os.environ,
        "CLICKHOUSE_TCP": tenant.endpoints.clickhouse_tcp,
        "CLICKHOUSE_DATABASE": tenant.database,
        "CLICKHOUSE_USER": settings.clickhouse_user,
        "CLICKHOUSE_PASSWORD": str(settings.clickhouse_password),
    }
    answer = subprocess.run([str(program)], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [f"{event.action}\t{event.id}" for event in events]
