"""What a partition holds besides records, and what it does not hold any more."""

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from auditstream_ops.accounts import PartitionAccount, verify
from auditstream_ops.clickhouse import connect
from auditstream_schemas.codec import encode
from tests.support.events import make_event
from tests.support.pipeline import put_events, run_sink, schema_id, sink_settings
from tests.support.stack import Tenant


@pytest.fixture(autouse=True)
def real_broker(backend: str) -> None:
    if backend == "local":
        pytest.skip("Tansu neither isolates transactions nor deletes records; see test-kafka")


def test_markers_and_aborted_records_at_the_end_are_in_the_books_and_may_be_deleted(tenant: Tenant) -> None:
    transact(tenant, [0, 1], commit=True)
    transact(tenant, [2], commit=False)
    totals = run_sink(tenant)
    assert (totals.read, totals.stored) == (2, 2)
    # Two records and their marker, one that was aborted and its marker.
    account = partition(tenant)
    assert (account.next_offset, account.end, account.lag, account.committed) == (5, 5, 0, 5)
    assert account.problems == ()
    batches = account.batches

    delete_before(tenant, 5)
    put_events(tenant, [make_event(3)], partition=0)
    assert run_sink(tenant).stored == 1
    transact(tenant, [4], commit=False)
    assert run_sink(tenant).read == 0
    # Nothing new is not worth a line.
    assert run_sink(tenant).batches == 0
    account = partition(tenant)
    assert (account.next_offset, account.lag, account.problems) == (8, 0, ())
    assert account.batches == batches + 2


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
    """As the broker's retention does."""
    admin = AdminClient({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
    for deleted in admin.delete_records([TopicPartition(tenant.topic, 0, offset)]).values():
        assert deleted.result(30).low_watermark == offset


def partition(tenant: Tenant) -> PartitionAccount:
    settings = sink_settings(tenant)
    return verify(connect(settings), tenant.database, settings, complete=True)[-1].partitions[0]
