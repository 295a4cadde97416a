"""Servers are killed under a running sink. These tests have a stack of their own, so that they can kill its servers."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditstream_local.endpoints import CLICKHOUSE, REGISTRY
from auditstream_local.stack import LocalStack
from tests.support.events import make_event
from tests.support.fix_stack import Tenant, local_stack, prepared_tenant
from tests.support.health import HealthPort
from tests.support.late_port import LatePort
from tests.support.pipeline import (
    assert_balanced,
    count,
    dead_letters,
    end,
    partition_checks,
    put_events,
    run_sink,
    start_sink,
)


@pytest.fixture
def servers(tmp_path: Path, backend: str) -> Iterator[LocalStack]:
    if backend != "local":
        pytest.skip("kills servers of a local stack of its own, so the backend of the run makes no difference")
    with local_stack(tmp_path / "stack") as stack:
        yield stack


@pytest.fixture
def victim(servers: LocalStack) -> Tenant:
    return prepared_tenant(servers.endpoints)


def restart(stack: LocalStack, name: str) -> None:
    server = stack.server(name)
    server.start()
    server.wait_until_answering(time.monotonic() + 60)


def test_a_kill_of_clickhouse_under_load_loses_and_doubles_nothing(servers: LocalStack, victim: Tenant) -> None:
    health = HealthPort()
    process = start_sink(victim, AUDITSTREAM_FLUSH_ROWS="500", AUDITSTREAM_CLICKHOUSE_TIMEOUT_SECONDS="5", **health.env)
    put_events(victim, [make_event(number) for number in range(2_000)])
    _wait_for_rows(victim, 500)
    for turn, pause in enumerate((0.5, 0.05, 2.0), start=1):
        put_events(victim, [make_event(number) for number in range(turn * 1_000, turn * 2_000 + 2_000)])
        time.sleep(pause)
        servers.server(CLICKHOUSE).kill()
        time.sleep(pause)
        if turn == 3:
            # The sink may have written everything by now. Second deliveries have to be written too.
            put_events(victim, [make_event(number) for number in range(7_000, 7_100)])
            health.wait_until_it_waits_for("clickhouse")
        restart(servers, CLICKHOUSE)
    _wait_for_rows(victim, 8_000)
    health.wait_until_ready()
    _compare_with_the_ledger(health, victim)
    status, _, err = end(process)
    assert status == 0, err
    assert "waiting for ClickHouse, nothing is lost" in err
    assert "s for ClickHouse" in err.partition("going on: waited ")[2]
    run_sink(victim)
    assert_balanced(victim)
    assert count(victim) == 8_000
    assert dead_letters(victim) == []


def test_the_sink_waits_for_the_broker_and_logs_the_wait_once(victim: Tenant) -> None:
    health = HealthPort()
    with LatePort(victim.endpoints.bootstrap_servers) as broker:
        process = start_sink(victim, AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS=broker.address, **health.env)
        health.wait_until_it_waits_for("broker")
        time.sleep(5)
        assert process.poll() is None
        # No record arrives: the sink sees only by the statistics that the broker is back.
        broker.open()
        health.wait_until_ready()
        status, _, err = end(process)
    assert status == 0, err
    assert err.count(f"waiting for the broker at {broker.address}, nothing is lost") == 1
    assert err.count(f"s for the broker at {broker.address}") == 1


def test_records_wait_while_the_registry_is_away(servers: LocalStack, victim: Tenant) -> None:
    put_events(victim, [make_event(number) for number in range(100)])
    servers.server(REGISTRY).kill()
    health = HealthPort()
    process = start_sink(victim, **health.env)
    health.wait_until_it_waits_for("registry")
    time.sleep(3)
    assert process.poll() is None
    assert count(victim) == 0
    restart(servers, REGISTRY)
    _wait_for_rows(victim, 100)
    health.wait_until_ready()
    status, _, err = end(process)
    assert status == 0, err
    # The first look-up was retried for a while; then the sink logged the wait once.
    assert err.count("waiting for the schema registry") == 1
    assert err.count("s for the schema registry") == 1
    assert_balanced(victim)
    assert dead_letters(victim) == []


def test_a_sink_stops_while_clickhouse_is_away_and_loses_nothing(servers: LocalStack, victim: Tenant) -> None:
    process = start_sink(victim, AUDITSTREAM_DRAIN_SECONDS="3", AUDITSTREAM_CLICKHOUSE_TIMEOUT_SECONDS="5")
    put_events(victim, [make_event(number) for number in range(100)])
    _wait_for_rows(victim, 100)
    servers.server(CLICKHOUSE).kill()
    put_events(victim, [make_event(number) for number in range(100, 300)])
    time.sleep(3)
    status, _, err = end(process)
    assert status == 0, err
    assert "the next sink reads it again" in err
    # Several attempts have failed by then. The wait is logged once, and no library logs the attempts.
    assert err.count("waiting for ClickHouse") == 1
    assert not any(noise in err for noise in ("Retrying", "Unexpected Http", "going on"))
    restart(servers, CLICKHOUSE)
    run_sink(victim)
    assert count(victim) == 300
    assert_balanced(victim)


def _compare_with_the_ledger(health: HealthPort, tenant: Tenant) -> None:
    """The metrics of a sink that moved everything are the sums of the ledger, and there is no lag."""
    deadline = time.monotonic() + 60
    while set(health.figure("lag_records").values()) != {0.0} or set(health.figure("lag_seconds").values()) != {0.0}:
        assert time.monotonic() < deadline, health.figure("lag_records")
        time.sleep(0.2)
    accounts = partition_checks(tenant)
    outcomes = health.figure("records_total")
    assert outcomes == {name: sum(getattr(account, name) for account in accounts) for name in outcomes}
    assert outcomes["stored"] == 8_000
    read = sum(account.read for account in accounts)
    assert health.figure("batch_records_sum")[""] == read <= health.figure("consumed_records_total")[""]
    assert health.figure("step_seconds_count")["insert"] > 0 < sum(health.figure("step_failures_total").values())
    assert health.figure("partitions") == {"": len(accounts)}
    assert sum(health.figure("dead_letters_total").values()) == 0


def _wait_for_rows(tenant: Tenant, rows: int) -> None:
    deadline = time.monotonic() + 90
    while count(tenant) < rows:
        assert time.monotonic() < deadline, "did not come true within 90 s"
        time.sleep(0.2)
