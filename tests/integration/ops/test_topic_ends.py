"""Partitions with transaction markers and aborted records at their end, and with deleted records at their start."""

import json

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from auditstream_ops.cli import cli
from auditstream_ops.clickhouse import connect
from auditstream_ops.ledger.partition_check import PartitionCheck
from auditstream_ops.ledger.verify import verify
from auditstream_schemas.codec import encode
from auditstream_schemas.errors import SinkError
from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.pipeline import put_events, run_sink, schema_id, sink_settings


@pytest.fixture(autouse=True)
def real_broker(backend: str) -> None:
    if backend == "local":
        pytest.skip("Tansu neither isolates transactions nor deletes records; see test-kafka")


def test_markers_and_aborted_records_at_the_end_are_in_the_ledger_and_may_be_deleted(tenant: Tenant) -> None:
    transact(tenant, [0, 1], commit=True)
    transact(tenant, [2], commit=False)
    totals = run_sink(tenant)
    assert (totals.read, totals.stored) == (2, 2)
    # Two records and their marker, one that was aborted and its marker.
    check = partition(tenant)
    assert (check.next_offset, check.end, check.lag, check.committed) == (5, 5, 0, 5)
    assert check.problems == ()
    batches = check.batches

    delete_before(tenant, 5)
    put_events(tenant, [make_event(3)], partition=0)
    assert run_sink(tenant).stored == 1
    transact(tenant, [4], commit=False)
    assert run_sink(tenant).read == 0
    # Without a new record there is no ledger line.
    assert run_sink(tenant).batches == 0
    check = partition(tenant)
    assert (check.next_offset, check.lag, check.problems) == (8, 0, ())
    assert check.batches == batches + 2


def test_a_loss_stops_the_sink_until_a_person_accepts_it_and_stays_in_the_ledger(tenant: Tenant) -> None:
    put_events(tenant, [make_event(number) for number in range(3)], partition=0)
    assert run_sink(tenant).stored == 3
    put_events(tenant, [make_event(number) for number in range(3, 10)], partition=0)
    command = ["accept-loss", "--why", "down for a week", "--yes"]
    assert "nothing is lost" in invoke(tenant, *command)
    delete_before(tenant, 8)
    with pytest.raises(SinkError, match=r"offsets 3 to 7 were deleted .* `auditstream accept-loss`"):
        run_sink(tenant)
    assert [fault.kind for fault in partition(tenant).faults] == ["gone", "unread"]
    assert "partition 0: offsets 3 to 7 (5)" in invoke(tenant, *command)
    assert "nothing is lost" in invoke(tenant, *command)
    totals = run_sink(tenant)
    assert (totals.read, totals.stored) == (2, 2)
    check = partition(tenant)
    assert (check.problems, check.read, check.stored, check.rows, check.lost) == ((), 5, 5, 5, 5)
    assert "offsets 3 to 7 are lost" in check.notes[0]
    assert check.notes[0].endswith(": down for a week")
    assert "5 offsets are LOST, as a person accepted" in invoke(tenant, "verify", "--complete")
    report = json.loads(invoke(tenant, "verify", "--json"))
    [loss] = report["topics"][0]["partitions"][0]["losses"]
    assert (loss["first_offset"], loss["last_offset"], loss["reason"]) == (3, 7, "down for a week")


def invoke(tenant: Tenant, *arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, env=tenant.env, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def transact(tenant: Tenant, numbers: list[int], *, commit: bool) -> None:
    producer = Producer({"bootstrap.servers": tenant.endpoints.bootstrap_servers, "transactional.id": tenant.topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in numbers:
        producer.produce(tenant.topic, encode(make_event(number), schema_id(tenant)), partition=0)
    assert producer.flush(30) == 0
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def delete_before(tenant: Tenant, offset: int) -> None:
    """Delete records as the broker's retention does."""
    admin = AdminClient({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
    for deleted in admin.delete_records([TopicPartition(tenant.topic, 0, offset)]).values():
        assert deleted.result(30).low_watermark == offset


def partition(tenant: Tenant) -> PartitionCheck:
    settings = sink_settings(tenant)
    return verify(connect(tenant.clickhouse("operator")), tenant.database, settings, complete=True)[-1].partitions[0]
