import logging
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest
from confluent_kafka import Consumer, TopicPartition

from auditstream_sink import SinkSettings
from auditstream_sink.assignment import Assignment
from auditstream_sink.batch import OffsetRange
from auditstream_sink.client import Lag
from auditstream_sink.clock import Clock
from auditstream_sink.health import Health
from auditstream_sink.metrics import METRICS, PREFIX, Metrics
from auditstream_storage import LedgerEnd


class StillClock(Clock):
    """Stands still until a test advances it."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def metrics(clock: StillClock) -> Metrics:
    return Metrics(clock)


@pytest.fixture
def health(metrics: Metrics, clock: StillClock) -> Health:
    return Health(SinkSettings(), metrics, clock)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(PREFIX + name, labels)


def test_the_sink_is_alive_while_its_loop_polls(health: Health, clock: StillClock) -> None:
    health.polled(partitions=0, unpositioned=0)
    clock.advance(300)
    assert health.alive().is_healthy
    clock.advance(1)
    assert not health.alive().is_healthy
    assert "has not polled for 301 s" in health.alive().reasons[0]
    health.polled(partitions=0, unpositioned=0)
    assert health.alive().is_healthy


def test_it_is_ready_when_it_is_in_its_group_and_all_partitions_are_positioned(health: Health) -> None:
    assert health.ready().reasons == ("not a member of its group yet",)
    health.rebalanced("assigned", unpositioned=3)
    assert health.ready().reasons == ("3 partitions cannot be read yet: the end of their ledger is not known",)
    health.polled(partitions=3, unpositioned=0)
    assert health.ready().is_healthy
    health.rebalanced("revoked", unpositioned=0)
    assert health.ready().is_healthy
    health.rebalanced("lost", unpositioned=0)
    assert not health.ready().is_healthy


def test_a_member_without_partitions_is_ready(health: Health) -> None:
    health.is_member = True
    assert health.ready().is_healthy


def test_a_dependency_is_waited_for_until_its_last_waiter_goes_on(
    health: Health, metrics: Metrics, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "auditstream.sink")
    health.rebalanced("assigned", unpositioned=0)
    health.waiting("batch", "clickhouse", "refused")
    clock.advance(2)
    health.waiting("positions", "clickhouse", "refused again")
    health.waiting("batch", "clickhouse", "refused again")
    health.waiting("schemas", "registry", "timed out")
    assert health.alive().is_healthy
    assert not health.ready().is_healthy
    assert health.ready().waits_for == {"clickhouse": 2.0, "registry": 0.0}
    assert value(metrics, "waiting", dependency="clickhouse") == value(metrics, "waiting", dependency="registry") == 1
    assert value(metrics, "waiting_since_timestamp_seconds", dependency="clickhouse") == 1_000
    assert value(metrics, "last_error_timestamp_seconds", dependency="clickhouse") == 1_002
    clock.advance(1)
    health.recovered("batch")
    health.recovered("schemas")
    assert health.ready().waits_for == {"clickhouse": 1.0}
    health.recovered("positions")
    assert health.ready().is_healthy
    assert value(metrics, "waiting", dependency="clickhouse") == 0
    assert value(metrics, "waiting_since_timestamp_seconds", dependency="clickhouse") == 0
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for ClickHouse, nothing is lost: refused",
        "waiting for the schema registry, nothing is lost: timed out",
        "going on: waited 1.0 s for the schema registry",
        "going on: waited 1.0 s for ClickHouse",
    ]


def test_a_waiter_waits_for_one_dependency_at_a_time(health: Health, metrics: Metrics) -> None:
    health.rebalanced("assigned", unpositioned=0)
    health.waiting("batch", "clickhouse", "refused")
    health.waiting("batch", "broker", "timed out")
    assert list(health.ready().waits_for) == ["broker"]
    assert "127.0.0.1:9092" in health.ready().reasons[0]
    assert value(metrics, "waiting", dependency="clickhouse") == 0


def test_a_step_is_measured_and_counted_when_it_fails(metrics: Metrics, clock: StillClock) -> None:
    with metrics.step("insert"):
        clock.advance(0.3)
    with pytest.raises(TimeoutError), metrics.step("insert"):
        time_out(clock)
    assert value(metrics, "step_seconds_count", step="insert") == 2
    assert value(metrics, "step_seconds_sum", step="insert") == pytest.approx(0.6)
    assert value(metrics, "step_failures_total", step="insert") == 1
    assert value(metrics, "step_failures_total", step="stage") == 0


def time_out(clock: StillClock) -> None:
    clock.advance(0.3)
    raise TimeoutError


class TopicEnds:
    """Stands in for a consumer that has fetched from partition 4 alone."""

    def get_watermark_offsets(self, partition: TopicPartition, *, cached: bool) -> tuple[int, int]:
        assert cached
        return (0, 10) if partition.partition == 4 else (-1001, -1001)


def test_the_lag_of_a_partition_that_is_gone_is_removed(metrics: Metrics, clock: StillClock) -> None:
    assignment = Assignment()
    assignment.assigned([3, 4])
    assignment.positioned(UUID(int=1), 7, {number: LedgerEnd(end=2, line_first=0) for number in (3, 4)})
    lag = Lag("events", cast("Consumer", TopicEnds()), metrics, clock)
    lag.update(assignment, [{3: OffsetRange(first=3, last=3, fencing_time=7, first_time=clock.seconds - 1.5)}])
    assert value(metrics, "lag_seconds", partition="3") == 1.5
    assert value(metrics, "lag_records", partition="3") is None
    assert value(metrics, "lag_records", partition="4") == 7
    assignment.gone([3, 4])
    clock.advance(1)
    lag.update(assignment, [])
    assert value(metrics, "lag_seconds", partition="3") is value(metrics, "lag_records", partition="4") is None


def test_every_metric_has_a_conventional_name_and_is_shown_from_the_start(metrics: Metrics) -> None:
    families = {family.name for family in metrics.registry.collect()}
    for metric in METRICS:
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (PREFIX + metric.name).removesuffix("_total") in families
    assert value(metrics, "records_total", outcome="stored") == 0
    assert value(metrics, "dead_letters_total", reason="conflict") == 0
