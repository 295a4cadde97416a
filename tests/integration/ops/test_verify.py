import json
import os
import subprocess
import sys
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from auditstream_ops.clickhouse import connect
from auditstream_ops.demo_events import broken_records
from auditstream_ops.deploy.topics import TopicPlan, create_topics
from auditstream_ops.ledger.partition_check import PartitionCheck
from auditstream_ops.ledger.topic_reader import TopicReader
from auditstream_ops.ledger.verify import TopicCheck, verify
from auditstream_schemas.codec import encode
from auditstream_schemas.errors import OperationError
from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.pipeline import put, put_events, run_sink, schema_id, sink_settings
from tests.support.stored_events import store

DAY = 24 * 3600 * 10**9


@pytest.fixture
def stored(tenant: Tenant) -> Tenant:
    """A tenant whose partition 0 has the batches 0..99, 100..199 and 200..299, the last with ten duplicates.

    The rows are inserted directly, in a tenth of the time that a sink takes.
    """
    events = [make_event(number) for number in range(290)]
    put_events(tenant, [*events, *events[:10]], partition=0)
    settings = sink_settings(tenant)
    store(settings, events)
    with TopicReader(settings) as reader:
        topic_id = reader.topic_id()
    _alter(tenant, f"event_log UPDATE kafka_topic = '{tenant.topic}', kafka_topic_id = '{topic_id}' WHERE 1")
    duplicates = "if(number = 2, 10, 0)"
    _insert_lines(
        tenant,
        f"number * 100, number * 100 + 99, 100, 100 - {duplicates}, {duplicates}, 0, 0, 0",
        3,
        topic_id=str(topic_id),
    )
    check = _partition(tenant)
    assert (check.faults, check.notes) == ((), ())
    return tenant


def test_the_ledger_of_a_sink_balances(tenant: Tenant) -> None:
    put_events(tenant, [make_event(number % 400) for number in range(450)])
    put(tenant, [record.value for record in broken_records(schema_id(tenant), now=time.time_ns(), seed=3)])
    run_sink(tenant, flush_rows=70)
    [topic] = _verify(tenant, complete=True)
    assert topic.is_current
    assert topic.is_balanced, topic
    assert not any(check.notes for check in topic.partitions)
    assert sum(check.read for check in topic.partitions) == 475
    assert sum(check.rows for check in topic.partitions) == 400
    for check in topic.partitions:
        assert check.committed == check.end == check.next_offset
        assert check.lag == check.low == 0
    status, out, _ = _command(tenant, "verify", "--complete")
    assert status == 0
    assert "the ledger balances: 475 records in" in out


def test_a_missing_line_is_a_gap(stored: Tenant) -> None:
    _alter(stored, "ledger DELETE WHERE first_offset = 100")
    assert _faults(stored) == [("gap", 100, 199)]
    [fault] = _partition(stored).faults
    assert fault.text == "offsets 100 to 199 are in no batch, but 100 of them have rows"
    status, out, _ = _command(stored, "verify")
    assert status == 1
    assert fault.text in out
    assert "the ledger does NOT balance" in out
    status, out, _ = _command(stored, "verify", "--json")
    assert status == 1
    report = json.loads(out)
    assert not report["balanced"]
    assert report["topics"][0]["partitions"][0]["faults"] == [
        {"kind": "gap", "first_offset": 100, "last_offset": 199, "text": fault.text}
    ]


def test_a_missing_first_line_is_a_gap_while_the_topic_has_its_records(stored: Tenant) -> None:
    _alter(stored, "ledger DELETE WHERE first_offset = 0")
    assert _faults(stored) == [("stray", 0, 99), ("gap", 0, 99)]


def test_lines_that_overlap_are_a_fault(stored: Tenant) -> None:
    _insert_line(stored, first=50, last=149, read=100, stored=100)
    assert _faults(stored) == [("overlap", 50, 99), ("overlap", 100, 149)]


def test_a_line_inside_another_does_not_hide_a_later_overlap(stored: Tenant) -> None:
    _alter(stored, "ledger UPDATE last_offset = 249, read = 150, stored = 150 WHERE first_offset = 100")
    _insert_line(stored, first=120, last=129, read=10, stored=10)
    assert _faults(stored) == [("overlap", 120, 129), ("overlap", 200, 249)]


def test_the_later_of_two_lines_with_one_first_offset_counts(stored: Tenant) -> None:
    _alter(stored, "ledger DELETE WHERE first_offset = 200")
    _insert_line(stored, first=200, last=249, read=50, stored=50)
    _insert_line(stored, first=200, last=299, read=100, stored=90, duplicates=10)
    assert _faults(stored) == []


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ("duplicates = duplicates + 1", ["counts"]),
        ("invalid = invalid + 1, read = read + 1", ["range"]),
        ("stored = stored - 1, invalid = invalid + 1", ["extra"]),
        # The topic shows that there was a record at each offset.
        ("stored = stored - 1, read = read - 1", ["range", "extra"]),
    ],
)
def test_a_line_that_does_not_add_up_is_a_fault(stored: Tenant, change: str, kinds: list[str]) -> None:
    _alter(stored, f"ledger UPDATE {change} WHERE first_offset = 100")
    assert [kind for kind, _, _ in _faults(stored)] == kinds


def test_a_line_that_ends_before_it_begins_is_a_fault(stored: Tenant) -> None:
    _insert_line(stored, first=300, last=299, read=0, stored=0)
    assert _faults(stored) == [("range", 300, 299)]


def test_missing_rows_are_named(stored: Tenant) -> None:
    _alter(stored, "event_log DELETE WHERE kafka_offset BETWEEN 120 AND 121")
    assert _faults(stored) == [("missing", 100, 199)]
    [fault] = _partition(stored).faults
    assert "stored 100, but the table has 98 rows" in fault.text
    assert str(make_event(120).id) in fault.text
    assert str(make_event(121).id) in fault.text


def test_missing_rows_are_found_in_each_batch(stored: Tenant) -> None:
    """An extra row in another batch does not compensate for a missing row."""
    _alter(stored, "event_log DELETE WHERE kafka_offset = 120")
    _copy_row(stored, offset=10, changes="generateUUIDv4() AS id, toInt64(295) AS kafka_offset")
    assert _faults(stored) == [("missing", 100, 199), ("extra", 200, 299)]


def test_two_rows_of_one_offset_are_a_fault(stored: Tenant) -> None:
    _copy_row(stored, offset=10, changes="generateUUIDv4() AS id")
    assert _faults(stored) == [("doubled", 0, 299)]


def test_rows_of_a_batch_past_the_retention_may_be_missing(stored: Tenant) -> None:
    _alter(stored, "event_log DELETE WHERE kafka_offset BETWEEN 120 AND 122")
    _alter(stored, "ledger UPDATE written_at = now() - INTERVAL 12 MONTH - INTERVAL 25 HOUR WHERE first_offset = 100")
    assert _faults(stored) == []
    check = _partition(stored)
    assert check.expired_since == 3
    assert check.notes == ("the retention has deleted 3 rows",)
    _alter(stored, "ledger UPDATE written_at = now() - INTERVAL 12 MONTH - INTERVAL 23 HOUR WHERE first_offset = 100")
    assert _faults(stored) == [("missing", 100, 199)]


def test_batches_past_the_retention_do_not_hide_a_fault(stored: Tenant) -> None:
    _insert_lines(stored, "number * 5 + 300, number * 5 + 304, 5, 5, 0, 0, 0, 0", 120)
    _alter(stored, "ledger UPDATE written_at = now() - INTERVAL 13 MONTH WHERE first_offset >= 300")
    _alter(stored, "ledger UPDATE duplicates = 1 WHERE first_offset = 895")
    assert _faults(stored) == [("counts", 895, 899), ("beyond", 300, 899)]
    assert _partition(stored).expired_since == 600


def test_an_event_that_was_almost_as_old_as_the_retention_may_be_missing(tenant: Tenant) -> None:
    old = make_event(1, occurred_at=time.time_ns() - 370 * DAY)
    put_events(tenant, [make_event(0), old], partition=0)
    run_sink(tenant)
    assert _partition(tenant).expired == 1
    # As if the event had been stored some days ago and deleted since. With its dead letter it would not be missing.
    _alter(tenant, "ledger UPDATE stored = 2, expired = 0 WHERE 1")
    assert _faults(tenant, dead_letter_topic=_empty_topic(tenant)) == []
    assert "1 are past the retention" in _partition(tenant, dead_letter_topic=_empty_topic(tenant)).notes[0]


def test_an_event_that_two_sinks_stored_at_once_is_not_missing(tenant: Tenant) -> None:
    put_events(tenant, [make_event(0), make_event(1)], partition=0)
    run_sink(tenant)
    put_events(tenant, [make_event(1)], partition=1)
    put(tenant, [b"broken"], partition=1)
    run_sink(tenant)
    # As two sinks leave it that stored the id at the same moment, after a merge has collapsed the two rows.
    _alter(tenant, "ledger UPDATE stored = 1, duplicates = 0 WHERE partition = 1")
    assert _faults(tenant) == []
    assert "visible from another delivery" in _partition(tenant, 1).notes[0]


def test_a_commit_ahead_of_the_ledger_is_a_fault(stored: Tenant) -> None:
    put_events(stored, [make_event(number) for number in range(300, 310)], partition=0)
    _commit(stored, 0, 305)
    assert _faults(stored) == [("commit", 300, 304)]


def test_a_commit_without_a_ledger_is_a_fault(tenant: Tenant) -> None:
    put_events(tenant, [make_event(number) for number in range(10)], partition=1)
    _commit(tenant, 1, 10)
    assert _faults(tenant, 1) == [("commit", 0, 9)]


def test_records_that_no_sink_has_read_are_a_fault_with_complete_only(stored: Tenant) -> None:
    # Several batches of several records: the local broker's watermark is that of the last batch's first record.
    put_events(stored, [make_event(number) for number in range(300, 330)], partition=0)
    put_events(stored, [make_event(number) for number in range(330, 350)], partition=0)
    put_events(stored, [make_event(number) for number in range(400, 407)], partition=2)
    assert _faults(stored) == []
    assert [check.lag for check in _verify(stored)[0].partitions] == [50, 0, 7]
    assert _faults(stored, complete=True) == [("unread", 300, 349)]
    assert _faults(stored, 2, complete=True) == [("unread", 0, 6)]
    assert _command(stored, "verify")[0] == 0
    status, out, _ = _command(stored, "verify", "--complete")
    assert status == 1
    assert "57 records wait" in out


def test_offsets_of_transaction_markers_are_explained(tenant: Tenant) -> None:
    producer = Producer({"bootstrap.servers": tenant.endpoints.bootstrap_servers, "transactional.id": tenant.topic})
    producer.init_transactions(30)
    for number in range(2):
        producer.begin_transaction()
        producer.produce(tenant.topic, encode(make_event(number), schema_id(tenant)), partition=0)
        producer.commit_transaction(30)
    put_events(tenant, [make_event(2)], partition=0)
    assert run_sink(tenant, flush_seconds=2.0).read == 3
    check = _partition(tenant, complete=True)
    assert check.problems == ()
    assert check.next_offset == 5
    assert any("a producer used transactions" in note for note in check.notes)


def test_many_faults_are_listed_up_to_a_limit_and_counted(stored: Tenant) -> None:
    _insert_lines(stored, "number * 10 + 300, number * 10 + 304, 5, 0, 0, 0, 5, 0", 150)
    check = _partition(stored)
    assert [fault.kind for fault in check.faults].count("gap") == 100
    assert check.more_faults == 49
    assert check.problems[-1] == "49 more batches do not balance"


def test_a_ledger_beyond_the_end_of_the_topic_is_a_fault(stored: Tenant) -> None:
    _insert_lines(stored, "300, 309, 10, 0, 0, 0, 10, 0", 1)
    assert _faults(stored) == [("beyond", 300, 309)]


def test_a_topic_created_anew_has_a_ledger_of_its_own(stored: Tenant) -> None:
    before = _verify(stored)[0].topic_id
    _commit(stored, 0, 300)
    admin = AdminClient({"bootstrap.servers": stored.endpoints.bootstrap_servers})
    admin.delete_topics([stored.topic])[stored.topic].result(30)
    _create_again(stored)
    # A broker may keep the group's commits of the topic that was deleted.
    assert _faults(stored) == []
    put_events(stored, [make_event(number) for number in range(500, 520)], partition=0)
    run_sink(stored)
    earlier, current = _verify(stored)
    assert (earlier.topic_id, earlier.is_current, current.is_current) == (before, False, True)
    assert earlier.is_balanced, earlier
    assert current.is_balanced, current
    assert (earlier.partitions[0].read, current.partitions[0].read) == (300, 20)
    _alter(stored, "event_log DELETE WHERE kafka_offset = 150")
    earlier, current = _verify(stored)
    assert [fault.kind for fault in earlier.partitions[0].faults] == ["missing"]
    assert current.is_balanced
    assert _command(stored, "verify", "--topic-id", str(current.topic_id))[0] == 0
    assert _command(stored, "verify", "--topic-id", str(before))[0] == 1


def test_an_empty_ledger_balances(tenant: Tenant) -> None:
    status, out, _ = _command(tenant, "verify")
    assert status == 0
    assert out.splitlines()[-1] == "the ledger is empty"
    put_events(tenant, [make_event(0)], partition=1)
    status, out, _ = _command(tenant, "verify", "--json")
    assert status == 0
    report = json.loads(out)
    assert report["balanced"]
    assert [(check["batches"], check["lag"]) for check in report["topics"][0]["partitions"]] == [(0, 0), (0, 1), (0, 0)]
    assert _command(tenant, "verify", "--complete")[0] == 1


def test_neither_a_topic_nor_a_ledger_is_an_error(tenant: Tenant) -> None:
    with pytest.raises(OperationError, match="no ledger of one"):
        verify(tenant.administrator(), tenant.database, sink_settings(tenant, topic="nowhere"))


def _verify(tenant: Tenant, *, complete: bool = False, **changes: object) -> list[TopicCheck]:
    settings = sink_settings(tenant, **changes)
    return verify(connect(tenant.clickhouse("operator")), tenant.database, settings, complete=complete)


def _partition(tenant: Tenant, partition: int = 0, *, complete: bool = False, **changes: object) -> PartitionCheck:
    return _verify(tenant, complete=complete, **changes)[-1].partitions[partition]


def _faults(
    tenant: Tenant, partition: int = 0, *, complete: bool = False, **changes: object
) -> list[tuple[str, int, int]]:
    check = _partition(tenant, partition, complete=complete, **changes)
    return [(fault.kind, fault.first_offset, fault.last_offset) for fault in check.faults]


def _commit(tenant: Tenant, partition: int, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": tenant.endpoints.bootstrap_servers, "group.id": tenant.group})
    consumer.commit(offsets=[TopicPartition(tenant.topic, partition, offset)], asynchronous=False)
    consumer.close()


def _alter(tenant: Tenant, change: str) -> None:
    client = tenant.administrator()
    client.command(f"ALTER TABLE {tenant.database}.{change}", settings={"mutations_sync": 1})


def _insert_line(tenant: Tenant, *, first: int, last: int, read: int, stored: int, duplicates: int = 0) -> None:
    _insert_lines(tenant, f"{first}, {last}, {read}, {stored}, {duplicates}, 0, 0, 0", 1)


def _insert_lines(tenant: Tenant, figures: str, count: int, *, topic_id: str = "") -> None:
    """Insert lines of partition 0; the figures are SQL of ``number``, from the first offset to the expired."""
    which = f"toUUID('{topic_id}')" if topic_id else f"(SELECT any(topic_id) FROM {tenant.database}.ledger)"
    tenant.administrator().command(
        f"INSERT INTO {tenant.database}.ledger (topic, topic_id, partition, first_offset, last_offset, read, stored, "
        f"duplicates, conflicts, invalid, expired, instance, written_at) SELECT '{tenant.topic}', "
        f"{which}, 0, {figures}, 'by hand', now64(3) "
        f"FROM numbers({count})"
    )


def _copy_row(tenant: Tenant, *, offset: int, changes: str) -> None:
    tenant.administrator().command(
        f"INSERT INTO {tenant.database}.event_log SELECT * REPLACE ({changes}) "
        f"FROM (SELECT * FROM {tenant.database}.event_log WHERE kafka_offset = {offset})"
    )


def _empty_topic(tenant: Tenant) -> str:
    create_topics(sink_settings(tenant), TopicPlan(partitions=1), dead_letter_topic=f"{tenant.topic}.none")
    return f"{tenant.topic}.none"


def _create_again(tenant: Tenant) -> None:
    """Create the topic once the broker has deleted it."""
    deadline = time.monotonic() + 30
    while tenant.topic not in create_topics(
        sink_settings(tenant), TopicPlan(partitions=3), dead_letter_topic=tenant.dlq_topic
    ):
        assert time.monotonic() < deadline, "the topic is still there after 30 s"
        time.sleep(0.2)


def test_a_database_without_tables_is_an_error_that_names_the_fix(tenant: Tenant) -> None:
    with tenant.administrator() as client:
        client.command(f"DROP TABLE {tenant.database}.ledger SYNC")
    code, _, err = _command(tenant, "verify")
    assert code == 1
    assert "run `auditstream migrate`" in err
    assert "Traceback" not in err


def _command(tenant: Tenant, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "auditstream_ops", *arguments],
        env={**os.environ, **tenant.env},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
