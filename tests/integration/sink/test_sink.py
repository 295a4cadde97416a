import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from auditstream_ops.demo_events import broken_records
from auditstream_schemas.codec import SCHEMA_JSON, encode, encode_body
from auditstream_schemas.errors import SinkError
from auditstream_schemas.registry import RegistryClient
from auditstream_sink import Sink
from auditstream_sink.dead_letters import SOURCE_OFFSET
from tests.support.events import make_event
from tests.support.fix_stack import NewTenant, Tenant
from tests.support.health import HealthPort
from tests.support.pipeline import (
    assert_balanced,
    count,
    dead_letters,
    end,
    partition_checks,
    put,
    put_events,
    run_sink,
    schema_id,
    sink_settings,
    start_sink,
)

DAY = 24 * 3600 * 10**9


def test_every_event_is_stored_and_every_offset_is_in_the_ledger(tenant: Tenant) -> None:
    events = [make_event(number) for number in range(500)]
    put_events(tenant, events)
    totals = run_sink(tenant)
    assert (totals.read, totals.stored, totals.duplicates, totals.invalid) == (500, 500, 0, 0)
    assert_balanced(tenant)
    client = tenant.administrator()
    ids = {row[0] for row in client.query(f"SELECT toString(id) FROM {tenant.database}.events").result_rows}
    assert ids == {str(event.id) for event in events}


def test_a_sink_is_not_idle_before_the_broker_has_answered(tenant: Tenant) -> None:
    class SlowConsumer(Consumer):
        """Gets no record in its first ten polls with partitions that can be read."""

        polls = 0

        def incremental_assign(self, partitions: list[TopicPartition]) -> None:
            super().incremental_assign(partitions)
            super().pause(partitions)

        def resume(self, partitions: list[TopicPartition]) -> None:
            if self.polls >= 10:
                super().resume(partitions)

        def consume(self, *arguments: Any, **named: Any) -> list[Message]:
            self.polls += bool(self.assignment())
            if self.polls == 10:
                self.resume(self.assignment())
            return super().consume(*arguments, **named)

    put_events(tenant, [make_event(number) for number in range(100)])
    sink = Sink(sink_settings(tenant), consumer_class=SlowConsumer)
    assert sink.run(until_idle=0.1).read == 100


def test_a_second_delivery_changes_nothing_and_is_counted(tenant: Tenant) -> None:
    events = [make_event(number) for number in range(300)]
    put_events(tenant, [*events, *events[:40]])
    first = run_sink(tenant)
    put_events(tenant, events)
    second = run_sink(tenant)
    assert (first.stored, first.duplicates) == (300, 40)
    assert (second.stored, second.duplicates) == (0, 300)
    assert count(tenant) == count(tenant, "event_log") == 300
    assert_balanced(tenant)


def test_a_second_delivery_on_another_partition_is_found(tenant: Tenant) -> None:
    event = make_event(1)
    put_events(tenant, [event], partition=0)
    run_sink(tenant)
    put_events(tenant, [event], partition=1)
    put_events(tenant, [event], partition=2)
    assert run_sink(tenant).duplicates == 2
    assert count(tenant) == 1


def test_other_content_under_a_known_id_becomes_a_dead_letter(tenant: Tenant) -> None:
    event = make_event(1)
    # Each differs in one field; two of these, the time and the scope, belong to the table's key.
    others = [
        replace(event, success=not event.success),
        replace(event, occurred_at=event.occurred_at - 40 * DAY),
        replace(event, scope=None),
        replace(event, actor=replace(event.actor, name="")),
        replace(event, metadata={"changed": "yes"}),
    ]
    put_events(tenant, [event, others[0]], partition=0)
    first = run_sink(tenant)
    put_events(tenant, others[1:], partition=1)
    second = run_sink(tenant)
    assert (first.stored, first.conflicts, second.stored, second.conflicts) == (1, 1, 0, 4)
    assert count(tenant, "event_log") == 1
    refused = dead_letters(tenant)
    assert {dead_letter.reason for dead_letter in refused} == {"conflict"}
    assert all("from partition 0 offset 0" in dead_letter.error for dead_letter in refused)
    assert_balanced(tenant)


def test_broken_records_do_not_harm_other_records(tenant: Tenant) -> None:
    writer = schema_id(tenant)
    broken = broken_records(writer, now=time.time_ns(), seed=7)
    sound = [make_event(number) for number in range(200)]
    values = [encode(event, writer) for event in sound] + [record.value for record in broken]
    random.Random(7).shuffle(values)
    put(tenant, values)
    totals = run_sink(tenant)
    assert (totals.stored, totals.invalid) == (200, 25)
    refused = dead_letters(tenant)
    assert sorted(dead_letter.value for dead_letter in refused) == sorted(record.value for record in broken)
    assert {dead_letter.reason for dead_letter in refused} >= {
        "undecodable",
        "wire_format",
        "unknown_schema",
        "id",
        "action",
        "payload",
        "future",
    }
    assert_balanced(tenant)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "wire_format"),
        (b"", "wire_format"),
        (b"\0\0\0", "wire_format"),
        (b"{}", "wire_format"),
        (b"\0\0\0\0\xff", "unknown_schema"),
    ],
)
def test_a_value_that_is_not_an_event_becomes_a_dead_letter(tenant: Tenant, value: bytes | None, reason: str) -> None:
    put(tenant, [value])
    assert run_sink(tenant).invalid == 1
    assert [dead_letter.reason for dead_letter in dead_letters(tenant)] == [reason]
    assert_balanced(tenant)


def test_trailing_bytes_are_refused_whatever_the_other_records_are(tenant: Tenant) -> None:
    writer = schema_id(tenant)
    trailing = encode(make_event(1), writer) + b"\0"
    put(tenant, [trailing])
    put(tenant, [encode(make_event(2), writer), trailing, encode(make_event(3), writer)[:-3]])
    totals = run_sink(tenant)
    assert (totals.stored, totals.invalid) == (1, 3)
    assert_balanced(tenant)


def test_a_dead_letter_has_key_value_and_headers_of_its_record(tenant: Tenant) -> None:
    producer = Producer({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
    producer.produce(tenant.topic, value=b"rubbish", key=b"its key", headers={"trace": b"t-1"}, partition=2)
    assert producer.flush(30) == 0
    run_sink(tenant)
    consumer = Consumer({"bootstrap.servers": tenant.endpoints.bootstrap_servers, "group.id": "look"})
    consumer.assign([TopicPartition(tenant.dlq_topic, 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert (message.key(), message.value()) == (b"its key", b"rubbish")
    headers = dict(message.headers() or ())
    assert headers["trace"] == b"t-1"
    assert headers[SOURCE_OFFSET] == b"0"
    [dead_letter] = dead_letters(tenant)
    assert (dead_letter.topic, dead_letter.partition, dead_letter.offset) == (tenant.topic, 2, 0)
    assert dead_letter.reason == "wire_format"


def test_an_event_older_than_the_retention_becomes_a_dead_letter(tenant: Tenant) -> None:
    now = time.time_ns()
    put_events(tenant, [make_event(1, occurred_at=now - 400 * DAY), make_event(2, occurred_at=now - 300 * DAY)])
    totals = run_sink(tenant)
    assert (totals.stored, totals.expired) == (1, 1)
    assert [dead_letter.reason for dead_letter in dead_letters(tenant)] == ["expired"]
    assert_balanced(tenant)


def test_another_group_reads_on_from_the_end_of_the_ledger(tenant: Tenant) -> None:
    put_events(tenant, [make_event(number) for number in range(50)])
    run_sink(tenant)
    put_events(tenant, [make_event(number) for number in range(50, 60)])
    assert run_sink(tenant, group=f"{tenant.group}-other").read == 10
    assert_balanced(tenant)


def test_a_batch_that_is_read_again_has_the_same_counts_in_the_ledger(tenant: Tenant) -> None:
    events = [make_event(number) for number in range(100)]
    put_events(tenant, [*events, *events[:10]])
    run_sink(tenant)
    before = [replace(check, batches=0) for check in partition_checks(tenant)]
    # As after a crash between the insert and the ledger line: the rows are stored, but not in the ledger.
    tenant.administrator().command(f"TRUNCATE TABLE {tenant.database}.ledger")
    totals = run_sink(tenant)
    assert (totals.read, totals.stored, totals.duplicates) == (110, 100, 10)
    assert [replace(account, batches=0) for account in partition_checks(tenant)] == before
    assert count(tenant, "event_log") == 100


def test_records_of_an_older_and_a_newer_writer_share_a_batch(tenant: Tenant) -> None:
    schema = json.loads(SCHEMA_JSON)
    newer = json.dumps({**schema, "fields": [*schema["fields"], {"name": "region", "type": "string", "default": ""}]})
    older = json.dumps({**schema, "fields": schema["fields"][:-1]})
    registry = RegistryClient(tenant.endpoints.registry_url)
    newer_id, older_id = (registry.register(f"{tenant.topic}-value", text) for text in (newer, older))
    plain = [make_event(number, request=None) for number in range(3)]
    put(
        tenant,
        [
            encode(plain[0], schema_id(tenant)),
            b"\0" + newer_id.to_bytes(4) + encode_body(plain[1]) + b"\x0aearth",
            b"\0" + older_id.to_bytes(4) + encode_body(plain[2])[:-1],
        ],
    )
    assert run_sink(tenant).stored == 3
    assert_balanced(tenant)


def test_records_of_a_schema_without_required_fields_become_dead_letters(tenant: Tenant) -> None:
    registry = RegistryClient(tenant.endpoints.registry_url)
    other = registry.register(f"{tenant.topic}-other-value", '{"type":"record","name":"X","fields":[]}')
    put(tenant, [b"\0" + other.to_bytes(4)])
    assert run_sink(tenant).invalid == 1
    [dead_letter] = dead_letters(tenant)
    assert dead_letter.reason == "incompatible_schema"
    assert "lacks id" in dead_letter.error


def test_the_error_for_a_missing_topic_names_the_command_that_creates_it(tenant: Tenant) -> None:
    with pytest.raises(SinkError, match="auditstream topics"):
        run_sink(tenant, topic=f"{tenant.topic}-missing")


def test_after_sigterm_the_sink_writes_the_records_that_it_has_read(tenant: Tenant) -> None:
    # The first hundred fill a batch, and their rows show that the sink runs; the others would wait for an hour.
    process = start_sink(tenant, AUDITSTREAM_FLUSH_SECONDS="3600", AUDITSTREAM_FLUSH_ROWS="100")
    put_events(tenant, [make_event(number) for number in range(130)], partition=0)
    _wait_for_rows(tenant, 100)
    time.sleep(1)
    status, out, err = end(process)
    assert (status, json.loads(out)["read"]) == (0, 130), err
    assert_balanced(tenant)


def test_the_ledger_balances_after_sigkill_at_random_moments(tenant: Tenant) -> None:
    moment = random.Random(11)
    events = [make_event(number) for number in range(6_000)]
    broken = [record.value for record in broken_records(schema_id(tenant), now=time.time_ns(), seed=11)]
    put_events(tenant, [*events[:3000], *events[:300]])
    put(tenant, broken)
    put_events(tenant, events[3000:])
    for _ in range(10):
        process = start_sink(tenant, AUDITSTREAM_FLUSH_ROWS="100")
        time.sleep(2.5 + moment.random() * 4)
        end(process, signal.SIGKILL)
    run_sink(tenant)
    assert_balanced(tenant)
    assert count(tenant) == 6_000
    sums = {
        name: sum(getattr(account, name) for account in partition_checks(tenant))
        for name in ("stored", "duplicates", "invalid")
    }
    assert sums == {"stored": 6_000, "duplicates": 300, "invalid": 25}
    assert sorted(dead_letter.value for dead_letter in dead_letters(tenant)) == sorted(broken)


def test_two_sinks_of_a_group_share_the_partitions(tenant: Tenant) -> None:
    put_events(tenant, [make_event(number) for number in range(1_000)])
    first = start_sink(tenant, AUDITSTREAM_FLUSH_ROWS="50")
    _wait_for_rows(tenant, 1_000)
    second = start_sink(tenant, AUDITSTREAM_FLUSH_ROWS="50")
    put_events(tenant, [make_event(number) for number in range(1_000, 3_000)])
    _wait_for_rows(tenant, 3_000)
    put_events(tenant, [make_event(number) for number in range(3_000, 4_000)])
    _wait_for_rows(tenant, 4_000)
    for process in (first, second):
        status, _, err = end(process)
        assert status == 0, err
    assert_balanced(tenant)
    assert count(tenant) == count(tenant, "event_log") == 4_000


def test_a_sink_can_use_the_group_protocol_of_kip_848(tenant: Tenant, backend: str) -> None:
    if backend == "local":
        pytest.skip("Tansu has no group.protocol=consumer; see test-kafka")
    put_events(tenant, [make_event(number) for number in range(200)])
    assert run_sink(tenant, group_protocol="consumer").stored == 200
    put_events(tenant, [make_event(number) for number in range(150, 300)])
    totals = run_sink(tenant, group_protocol="consumer")
    assert (totals.stored, totals.duplicates) == (100, 50)
    assert_balanced(tenant)


def test_a_sink_without_partitions_is_ready(new_tenant: NewTenant, backend: str) -> None:
    tenant = new_tenant(partitions=1)
    # The classic protocol makes a callback for an empty assignment, the newer one does not.
    protocol = "classic" if backend == "local" else "consumer"
    ports = HealthPort(), HealthPort()
    processes = [start_sink(tenant, AUDITSTREAM_GROUP_PROTOCOL=protocol, **port.env) for port in ports]
    for port in ports:
        port.wait_until_ready()
    _wait_until(lambda: sorted(port.figure("partitions")[""] for port in ports) == [0, 1])
    for port, process in zip(ports, processes, strict=True):
        assert port.get("/readyz")[0] == 200
        status, _, err = end(process)
        assert status == 0, err


def _wait_for_rows(tenant: Tenant, rows: int) -> None:
    _wait_until(lambda: count(tenant) >= rows)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "did not come true within 60 s"
        time.sleep(0.2)
