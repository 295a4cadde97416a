"""Servers go away under a running sink. These tests have a stack of their own: they kill its parts."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditstream_ops.local.endpoints import CLICKHOUSE, REGISTRY
from auditstream_ops.local.stack import LocalStack
from tests.support.events import make_event
from tests.support.pipeline import assert_balanced, count, end, letters, put_events, run_sink, start_sink
from tests.support.stack import Tenant, prepared_tenant


@pytest.fixture
def local_stack(tmp_path: Path, backend: str) -> Iterator[LocalStack]:
    if backend != "local":
        pytest.skip("kills the parts of a local stack of its own, whatever the backend of the run")
    with LocalStack(tmp_path / "stack") as stack:
        yield stack


@pytest.fixture
def victim(local_stack: LocalStack) -> Tenant:
    return prepared_tenant(local_stack.endpoints)


def restart(stack: LocalStack, name: str) -> None:
    server = stack.server(name)
    server.start()
    server.wait_until_well(time.monotonic() + 60)


def test_clickhouse_killed_under_load_loses_and_doubles_nothing(local_stack: LocalStack, victim: Tenant) -> None:
    process = start_sink(victim, AUDITSTREAM_FLUSH_ROWS="500", AUDITSTREAM_CLICKHOUSE_TIMEOUT_SECONDS="5")
    put_events(victim, [make_event(number) for number in range(2_000)])
    _wait_for_rows(victim, 500)
    for turn, pause in enumerate((0.5, 0.05, 2.0), start=1):
        put_events(victim, [make_event(number) for number in range(turn * 1_000, turn * 2_000 + 2_000)])
        time.sleep(pause)
        local_stack.server(CLICKHOUSE).kill()
        time.sleep(pause)
        restart(local_stack, CLICKHOUSE)
    _wait_for_rows(victim, 8_000)
    status, _, err = end(process)
    assert status == 0, err
    run_sink(victim)
    assert_balanced(victim)
    assert count(victim) == 8_000
    assert letters(victim) == []


def test_a_broker_that_is_away_is_waited_for_and_named_once(victim: Tenant) -> None:
    process = start_sink(victim, AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    time.sleep(6)
    assert process.poll() is None
    status, _, err = end(process)
    assert status == 0, err
    assert err.count("waiting for the broker at 127.0.0.1:9, nothing is lost") == 1


def test_a_registry_that_is_away_makes_records_wait(local_stack: LocalStack, victim: Tenant) -> None:
    put_events(victim, [make_event(number) for number in range(100)])
    local_stack.server(REGISTRY).kill()
    process = start_sink(victim)
    time.sleep(5)
    assert process.poll() is None
    assert count(victim) == 0
    restart(local_stack, REGISTRY)
    _wait_for_rows(victim, 100)
    status, _, err = end(process)
    assert status == 0, err
    # The first look-up tried for a while before the sink said so, once.
    assert err.count("waiting for the schema registry") == 1
    assert_balanced(victim)
    assert letters(victim) == []


def test_a_sink_told_to_stop_while_clickhouse_is_away_stops_and_loses_nothing(
    local_stack: LocalStack, victim: Tenant
) -> None:
    process = start_sink(victim, AUDITSTREAM_DRAIN_SECONDS="3", AUDITSTREAM_CLICKHOUSE_TIMEOUT_SECONDS="5")
    put_events(victim, [make_event(number) for number in range(100)])
    _wait_for_rows(victim, 100)
    local_stack.server(CLICKHOUSE).kill()
    put_events(victim, [make_event(number) for number in range(100, 300)])
    time.sleep(3)
    status, _, err = end(process)
    assert status == 0, err
    assert "the next sink reads it again" in err
    restart(local_stack, CLICKHOUSE)
    run_sink(victim)
    assert count(victim) == 300
    assert_balanced(victim)


def _wait_for_rows(tenant: Tenant, rows: int) -> None:
    deadline = time.monotonic() + 90
    while count(tenant) < rows:
        assert time.monotonic() < deadline, "did not come true within 90 s"
        time.sleep(0.2)
