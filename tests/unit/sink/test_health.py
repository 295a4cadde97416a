import logging
from datetime import UTC, datetime

import pytest

from auditstream_sink import SinkSettings
from auditstream_sink.health import Health
from auditstream_sink.metrics import METRICS, PREFIX, Metrics


class StillClock:
    """Stands still until it is put forward."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
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


def figure(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(PREFIX + name, labels)


def test_a_loop_that_polls_is_alive_and_one_that_does_not_says_for_how_long(health: Health, clock: StillClock) -> None:
    health.polled(partitions=0, unpositioned=0)
    clock.sleep(300)
    assert health.alive().well
    clock.sleep(1)
    assert not health.alive().well
    assert "has not polled for 301 s" in health.alive().reasons[0]
    health.polled(partitions=0, unpositioned=0)
    assert health.alive().well


def test_it_is_ready_once_it_is_in_its_group_and_knows_where_to_read(health: Health) -> None:
    assert health.ready().reasons == ("not in its group yet",)
    health.rebalanced("assigned", unpositioned=3)
    assert health.ready().reasons == ("where to read on is not known yet for 3 partitions",)
    health.polled(partitions=3, unpositioned=0)
    assert health.ready().well
    health.rebalanced("revoked", unpositioned=0)
    assert health.ready().well
    health.rebalanced("lost", unpositioned=0)
    assert not health.ready().well


def test_a_member_without_partitions_is_ready(health: Health) -> None:
    health.joined()
    assert health.is_member
    assert health.ready().well


def test_what_is_waited_for_is_named_until_nobody_waits_for_it(
    health: Health, metrics: Metrics, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "auditstream.sink")
    health.rebalanced("assigned", unpositioned=0)
    health.wait("settlement", "clickhouse", "refused")
    clock.sleep(2)
    health.wait("places", "clickhouse", "refused again")
    health.wait("settlement", "clickhouse", "refused again")
    health.wait("schemas", "registry", "timed out")
    assert health.alive().well
    assert not health.ready().well
    assert health.ready().waits_for == {"clickhouse": 2.0, "registry": 0.0}
    assert figure(metrics, "waiting", part="clickhouse") == figure(metrics, "waiting", part="registry") == 1
    assert figure(metrics, "waiting_since_timestamp_seconds", part="clickhouse") == 1_000
    assert figure(metrics, "last_error_timestamp_seconds", part="clickhouse") == 1_002
    clock.sleep(1)
    health.go_on("settlement")
    health.go_on("schemas")
    assert health.ready().waits_for == {"clickhouse": 1.0}
    health.go_on("places")
    assert health.ready().well
    assert figure(metrics, "waiting", part="clickhouse") == 0
    assert figure(metrics, "waiting_since_timestamp_seconds", part="clickhouse") == 0
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for ClickHouse, nothing is lost: refused",
        "waiting for the schema registry, nothing is lost: timed out",
        "going on: waited 1.0 s for the schema registry",
        "going on: waited 1.0 s for ClickHouse",
    ]


def test_a_wait_that_turns_to_another_part_leaves_the_first(health: Health, metrics: Metrics) -> None:
    health.rebalanced("assigned", unpositioned=0)
    health.wait("settlement", "clickhouse", "refused")
    health.wait("settlement", "broker", "timed out")
    assert list(health.ready().waits_for) == ["broker"]
    assert "127.0.0.1:9092" in health.ready().reasons[0]
    assert figure(metrics, "waiting", part="clickhouse") == 0


def test_a_step_is_measured_and_counted_when_it_fails(metrics: Metrics, clock: StillClock) -> None:
    with metrics.step("insert"):
        clock.sleep(0.3)
    with pytest.raises(TimeoutError), metrics.step("insert"):
        time_out(clock)
    assert figure(metrics, "step_seconds_count", step="insert") == 2
    assert figure(metrics, "step_seconds_sum", step="insert") == pytest.approx(0.6)
    assert figure(metrics, "step_failures_total", step="insert") == 1
    assert figure(metrics, "step_failures_total", step="stage") == 0


def time_out(clock: StillClock) -> None:
    clock.sleep(0.3)
    raise TimeoutError


def test_a_partition_that_is_gone_has_no_lag(metrics: Metrics) -> None:
    metrics.lag(3, records=None, seconds=1.5)
    metrics.lag(4, records=7, seconds=0)
    assert figure(metrics, "lag_seconds", partition="3") == 1.5
    assert figure(metrics, "lag_records", partition="3") is None
    metrics.no_lag(3)
    metrics.no_lag(4)
    assert figure(metrics, "lag_seconds", partition="3") is figure(metrics, "lag_records", partition="4") is None


def test_every_metric_is_named_as_prometheus_asks_and_there_from_the_start(metrics: Metrics) -> None:
    found = {family.name for family in metrics.registry.collect()}
    for metric in METRICS:
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (PREFIX + metric.name).removesuffix("_total") in found
    assert figure(metrics, "records_total", outcome="stored") == 0
    assert figure(metrics, "dead_letters_total", reason="conflict") == 0
