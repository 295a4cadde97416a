"""Rare orders of statements: a statement of the sink is delayed or cut off at the worst moment.

Broker and ClickHouse are real. The tests insert a disturbance between two statements of the sink.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from auditstream_ops.clickhouse import connect
from auditstream_ops.deploy.topics import TopicPlan, create_topics
from auditstream_ops.ledger.reconcile import reconcile
from auditstream_ops.ledger.verify import verify
from auditstream_schemas.codec import encode
from auditstream_schemas.errors import AuditstreamError, RegistryError, SinkError
from auditstream_schemas.event import Entity
from auditstream_sink import Sink
from auditstream_sink.batch_writer import BatchCancelledError, TakenOverError
from auditstream_sink.clickhouse_writer import ClickHouseWriter, UnknownOutcomeError
from auditstream_sink.clock import Clock
from auditstream_sink.writer_schemas import UnusableSchema, WriterSchema, WriterSchemas
from auditstream_storage.ledger import LedgerLine
from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.pipeline import (
    IDLE_SECONDS,
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
from tests.support.relay import relay


def once(monkeypatch: pytest.MonkeyPatch, name: str, disturbance: Callable[..., None]) -> None:
    """Run ``disturbance(clickhouse, original)`` before the first call of a method of ClickHouseWriter."""
    original = getattr(ClickHouseWriter, name)
    calls: list[str] = []

    def disturbed(self: ClickHouseWriter, *arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            disturbance(self, lambda: original(self, *arguments, **named))
        return original(self, *arguments, **named)

    monkeypatch.setattr(ClickHouseWriter, name, disturbed)


def test_a_stage_lost_between_two_statements_is_filled_again(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_stage(clickhouse: ClickHouseWriter, _original: Callable[[], None]) -> None:
        clickhouse.clear_stage()

    put_events(tenant, [make_event(number) for number in range(100)])
    once(monkeypatch, "classify", lose_stage)
    assert run_sink(tenant).stored == count(tenant) == 100
    assert_balanced(tenant)


def test_an_insert_that_takes_effect_late_stores_nothing_else(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[tuple[Any, Callable[[], None]]] = []

    def time_out(clickhouse: ClickHouseWriter, original: Callable[[], None]) -> None:
        late.append((clickhouse._sql, original))
        raise UnknownOutcomeError("timed out")

    def arrive(clickhouse: ClickHouseWriter, _original: Callable[[], None]) -> None:
        current_sql, (clickhouse._sql, statement) = clickhouse._sql, late[0]
        with pytest.raises(UnknownOutcomeError, match="Code: 60"):
            statement()
        clickhouse._sql = current_sql

    event = make_event(1)
    writer = schema_id(tenant)
    broken = encode(make_event(3, action="workflow.job.start"), writer).replace(b"workflow", b"WORKFLOW")
    other = encode(replace(event, success=not event.success), writer)
    put(tenant, [encode(event, writer), other, encode(make_event(2), writer), broken], partition=0)
    once(monkeypatch, "insert", time_out)
    # The late statement arrives when the batch is staged again and has no statuses yet.
    monkeypatch.setattr(ClickHouseWriter, "classify", _second_time(ClickHouseWriter.classify, arrive))
    totals = run_sink(tenant)
    assert (totals.stored, totals.conflicts, totals.invalid) == (2, 1, 1)
    assert count(tenant, "event_log") == 2
    assert_balanced(tenant)


def _second_time(original: Any, disturbance: Callable[..., None]) -> Any:
    calls: list[int] = []

    def disturbed(self: ClickHouseWriter, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            disturbance(self, lambda: None)
        return original(self, *arguments, **named)

    return disturbed


@pytest.mark.parametrize("name", ["stage", "classify", "insert", "read_back", "write_lines"])
@pytest.mark.parametrize("took_effect", [True, False])
def test_after_an_unknown_outcome_the_batch_is_staged_again(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, name: str, *, took_effect: bool
) -> None:
    def cut(_clickhouse: ClickHouseWriter, original: Callable[[], None]) -> None:
        if took_effect:
            original()
        raise UnknownOutcomeError("the answer was lost")

    event = make_event(1)
    put_events(tenant, [event, make_event(2), event, replace(event, success=not event.success)], partition=0)
    once(monkeypatch, name, cut)
    totals = run_sink(tenant)
    assert (totals.read, totals.stored, totals.duplicates, totals.conflicts) == (4, 2, 1, 1)
    assert len(dead_letters(tenant)) == 1
    assert_balanced(tenant)


def test_a_stop_does_not_wait_for_a_statement_that_hangs(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, released, arrived = threading.Event(), threading.Event(), threading.Event()

    def hang(_clickhouse: ClickHouseWriter, original: Callable[[], None]) -> None:
        begun.set()
        assert released.wait(120)
        original()
        arrived.set()

    def stop() -> None:
        if begun.wait(60):
            sink.stop()

    put_events(tenant, [make_event(number) for number in range(100)])
    once(monkeypatch, "insert", hang)
    sink = Sink(sink_settings(tenant, drain_seconds=0.5))
    stopper = threading.Thread(target=stop)
    stopper.start()
    assert sink.run().read == 0
    stopper.join()
    assert run_sink(tenant).stored == 100
    released.set()
    assert arrived.wait(60)
    assert count(tenant) == 100
    assert_balanced(tenant)


def test_a_batch_is_staged_while_the_previous_one_is_inserted_and_classified_after_it(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_is_staged, _numbers = _staged_event(monkeypatch, stages=2)

    def wait_for_the_second(_clickhouse: ClickHouseWriter, _original: Callable[[], None]) -> None:
        assert second_is_staged.wait(60)

    put_events(tenant, [make_event(number) for number in range(50)] * 2, partition=0)
    once(monkeypatch, "insert", wait_for_the_second)
    totals = run_sink(tenant, flush_rows=50)
    assert (totals.stored, totals.duplicates) == (50, 50)
    assert count(tenant, "event_log") == 50
    assert_balanced(tenant)


@pytest.mark.parametrize("error", [SinkError("a person is needed"), TakenOverError("another sink has it")])
def test_a_batch_behind_a_failed_one_is_not_classified(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, error: AuditstreamError
) -> None:
    second_is_staged, staged = _staged_event(monkeypatch, stages=2)
    lines: list[LedgerLine] = []

    def fail(_clickhouse: ClickHouseWriter, _original: Callable[[], None]) -> None:
        assert second_is_staged.wait(60)
        raise error

    put_events(tenant, [make_event(number) for number in range(100)], partition=0)
    once(monkeypatch, "write_lines", fail)
    sink = Sink(sink_settings(tenant, flush_rows=50), on_lines=lines.extend)
    if isinstance(error, SinkError):
        with pytest.raises(SinkError):
            sink.run(until_idle=IDLE_SECONDS)
        # Those of the first batch alone; which of the two was staged first is left to their threads.
        assert count(tenant, "event_log") in staged
        assert not lines
        run_sink(tenant, flush_rows=50)
    else:
        # Read again from the end of the ledger, which is the start of the topic.
        sink.run(until_idle=IDLE_SECONDS)
        assert lines[0].first_offset == 0
    assert count(tenant, "event_log") == 100
    assert_balanced(tenant)


def _staged_event(monkeypatch: pytest.MonkeyPatch, *, stages: int) -> tuple[threading.Event, list[int]]:
    """An event that is set once so many batches are staged, and the number of records of each batch."""
    is_staged, numbers, staged = threading.Event(), list[int](), ClickHouseWriter.staged

    def counted(self: ClickHouseWriter) -> int:
        number = staged(self)
        numbers.append(number)
        if len(numbers) == stages:
            is_staged.set()
        return number

    monkeypatch.setattr(ClickHouseWriter, "staged", counted)
    return is_staged, numbers


def test_an_exception_in_an_answer_with_status_200_is_an_unknown_outcome(tenant: Tenant) -> None:
    commands = [f"INSERT INTO {tenant.database}.{name}".encode() for name in ("status_", "event_log", "ledger")]
    failed: set[tuple[bytes, int]] = set()
    lines = 0

    def fail_once_a_batch(question: bytes) -> bytes | None:
        nonlocal lines
        for command in commands:
            if question.startswith(command):
                if (command, lines) not in failed:
                    failed.add((command, lines))
                    return b"Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED)\n"
                lines += command == commands[-1]
        return None

    event = make_event(1)
    put_events(tenant, [event, make_event(2), event, replace(event, success=not event.success)], partition=0)
    with relay(tenant.endpoints.clickhouse_url, lambda _body, _send: True, fail_once_a_batch) as url:
        totals = run_sink(tenant, clickhouse_url=url, flush_rows=2)
    assert (totals.stored, totals.duplicates, totals.conflicts) == (2, 1, 1)
    # Three batches if the first fetch brought one record only.
    assert lines >= 2
    assert failed == {(command, batch) for command in commands for batch in range(lines)}
    assert count(tenant, "event_log") == 2
    assert [dead_letter.reason for dead_letter in dead_letters(tenant)] == ["conflict"]
    assert_balanced(tenant)


def test_a_late_line_of_a_sink_that_was_overtaken_is_not_written(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_overtaken(_clickhouse: ClickHouseWriter, _original: Callable[[], None]) -> None:
        monkeypatch.undo()
        put_events(tenant, [make_event(number) for number in range(60, 100)], partition=0)
        run_sink(tenant, group=f"{tenant.group}-successor")

    put_events(tenant, [make_event(number) for number in range(60)], partition=0)
    once(monkeypatch, "write_lines", be_overtaken)
    run_sink(tenant)
    assert_balanced(tenant)
    [account] = [account for account in partition_checks(tenant) if account.read]
    assert (account.first_offset, account.last_offset, account.stored) == (0, 99, 100)
    assert count(tenant) == 100


@pytest.mark.parametrize("has_other_content", [False, True])
def test_two_sinks_store_one_id_at_the_same_time(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, *, has_other_content: bool
) -> None:
    event = make_event(1)
    put_events(tenant, [event, make_event(2)], partition=0)
    put_events(tenant, [make_event(3), replace(event, success=event.success != has_other_content)], partition=1)

    def other_sink_stores_first(_clickhouse: ClickHouseWriter, _original: Callable[[], None]) -> None:
        write_partition(tenant, 1)

    once(monkeypatch, "insert", other_sink_stores_first)
    write_partition(tenant, 0)
    assert count(tenant, "event_log") == 4
    client = tenant.administrator()
    report = reconcile(client, tenant.database)
    repeated = [(copies.id, copies.visible) for copies in report.repeated]
    assert repeated == ([(event.id, 2)] if has_other_content else [])
    for _ in range(2):
        assert sum(check.stored for check in partition_checks(tenant)) == 4
        assert_balanced(tenant)
        client.command(f"OPTIMIZE TABLE {tenant.database}.event_log FINAL")
    assert count(tenant, "event_log") == count(tenant) == 3 + has_other_content
    # The topic cannot be read any more.
    admin = AdminClient({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
    admin.delete_topics([tenant.topic])[tenant.topic].result(30)
    [earlier] = verify(client, tenant.database, sink_settings(tenant))
    create_topics(sink_settings(tenant), TopicPlan(partitions=3), dead_letter_topic=tenant.dlq_topic)
    assert earlier.is_balanced, earlier
    notes = [note for account in earlier.partitions for note in account.notes]
    assert len(notes) == (not has_other_content)
    # The table of copies does not hide the loss of a row.
    client.command(
        f"ALTER TABLE {tenant.database}.event_log DELETE WHERE id = '{event.id}' SETTINGS mutations_sync = 1"
    )
    [earlier, *_] = verify(client, tenant.database, sink_settings(tenant))
    assert not earlier.is_balanced


@pytest.mark.parametrize("reads_back", [True, False])
def test_a_late_insert_of_events_that_others_stored_keeps_the_ledger_balanced(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, *, reads_back: bool
) -> None:
    put_events(tenant, [make_event(1), make_event(2)], partition=0)
    put_events(tenant, [make_event(1)], partition=1)

    def oversleep(_clickhouse: ClickHouseWriter, original: Callable[[], None]) -> None:
        write_partition(tenant, 1)
        # The successor on partition 0: the id is a second delivery for it.
        write_partition(tenant, 0, group="successor")
        if not reads_back:
            original()
            raise BatchCancelledError

    once(monkeypatch, "insert", oversleep)
    with nullcontext() if reads_back else pytest.raises(BatchCancelledError):
        write_partition(tenant, 0)
    client = tenant.administrator()
    for _ in range(2):
        assert [(check.stored, check.duplicates) for check in partition_checks(tenant)] == [(1, 1), (1, 0), (0, 0)]
        assert_balanced(tenant)
        client.command(f"OPTIMIZE TABLE {tenant.database}.event_log FINAL")
    assert count(tenant, "event_log") == 2


def test_a_late_insert_of_other_content_is_shown_by_reconcile(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    event = make_event(1)
    put_events(tenant, [event, make_event(2)], partition=0)
    put_events(tenant, [replace(event, success=not event.success)], partition=1)

    def oversleep(_clickhouse: ClickHouseWriter, original: Callable[[], None]) -> None:
        write_partition(tenant, 1)
        # The successor on partition 0: other content is stored under the id, so its record becomes a dead letter.
        write_partition(tenant, 0, group="successor")
        original()
        raise BatchCancelledError

    once(monkeypatch, "insert", oversleep)
    with pytest.raises(BatchCancelledError):
        write_partition(tenant, 0)
    assert [(check.stored, check.conflicts) for check in partition_checks(tenant)] == [(1, 1), (1, 0), (0, 0)]
    assert_balanced(tenant)
    report = reconcile(connect(tenant.clickhouse("operator")), tenant.database)
    assert [repeated_id.id for repeated_id in report.repeated] == [event.id]
    assert len(dead_letters(tenant)) == 1


def write_partition(tenant: Tenant, partition: int, *, group: str = "") -> None:
    """Run a sink that is assigned one partition of the three, and no other."""

    class OnePartitionConsumer(Consumer):
        def subscribe(
            self, topics: list[str], on_assign: Any = None, on_revoke: Any = None, on_lost: Any = None
        ) -> None:
            def assign_one(consumer: Consumer, assigned: list[TopicPartition]) -> None:
                on_assign(consumer, [position for position in assigned if position.partition == partition])

            super().subscribe(topics, on_assign=assign_one, on_revoke=on_revoke, on_lost=on_lost)

    settings = sink_settings(tenant, group=f"{tenant.group}-{partition}{group}")
    Sink(settings, consumer_class=OnePartitionConsumer).run(until_idle=IDLE_SECONDS)


def test_a_sink_stops_when_its_ledger_is_gone(tenant: Tenant) -> None:
    def wipe(lines: object) -> None:
        del lines
        client = tenant.administrator()
        for table in ("ledger", "event_log"):
            client.command(f"TRUNCATE TABLE {tenant.database}.{table}")
        put_events(tenant, [make_event(number) for number in range(50, 80)], partition=0)

    put_events(tenant, [make_event(number) for number in range(50)], partition=0)
    with pytest.raises(SinkError, match="now it is gone"):
        Sink(sink_settings(tenant), on_lines=wipe).run(until_idle=IDLE_SECONDS)
    assert run_sink(tenant).stored == count(tenant) == 80
    assert_balanced(tenant)


def test_a_topic_created_again_under_a_stopped_sink_is_read_from_its_start(tenant: Tenant, backend: str) -> None:
    if backend == "local":
        pytest.skip("Tansu reports no error for offsets of a topic that was created again; see test-kafka")
    process = start_sink(tenant)
    put_events(tenant, [make_event(number) for number in range(100)], partition=0)
    _wait_for_rows(tenant, 100)
    os.kill(process.pid, signal.SIGSTOP)
    admin = AdminClient({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
    for deleted in admin.delete_topics([tenant.topic]).values():
        deleted.result(30)
    time.sleep(1)
    create_topics(sink_settings(tenant), TopicPlan(partitions=3), dead_letter_topic=tenant.dlq_topic)
    put_events(tenant, [make_event(number) for number in range(100, 400)], partition=0)
    os.kill(process.pid, signal.SIGCONT)
    time.sleep(5)
    end(process)
    run_sink(tenant)
    assert count(tenant) == 400
    assert_balanced(tenant)


def test_a_stop_during_a_request_to_the_registry_skips_no_record(tenant: Tenant) -> None:
    class StoppingSchemas(WriterSchemas):
        """Stops the sink when it asks for one id; the registry does not answer then."""

        def get(self, schema_id: int) -> WriterSchema | UnusableSchema:
            if schema_id != 77_777:
                return super().get(schema_id)
            sink.stop()
            raise RegistryError("away")

    writer = schema_id(tenant)
    values = [encode(make_event(number), writer) for number in range(100)]
    values[50] = values[50][:1] + (77_777).to_bytes(4) + values[50][5:]
    put(tenant, values, partition=0)
    sink = Sink(sink_settings(tenant), schemas_class=StoppingSchemas)
    assert sink.run().read == 50
    totals = run_sink(tenant)
    assert (totals.read, totals.stored, totals.invalid) == (50, 49, 1)
    assert_balanced(tenant)


def test_the_sink_polls_between_slow_requests_to_the_registry(tenant: Tenant) -> None:
    class Leaping(Clock):
        seconds = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.seconds

    class SlowSchemas(WriterSchemas):
        def get(self, schema_id: int) -> WriterSchema | UnusableSchema:
            clock.seconds += 2
            requests[-1] += 1
            return super().get(schema_id)

    class CountingConsumer(Consumer):
        def consume(self, *arguments: Any, **named: Any) -> list[Message]:
            requests.append(0)
            return super().consume(*arguments, **named)

    clock = Leaping()
    requests = [0]
    values = [b"\0" + number.to_bytes(4) + b"garbage" for number in range(70_000, 70_012)]
    put(tenant, [*values, encode(make_event(1), schema_id(tenant))], partition=0)
    sink = Sink(sink_settings(tenant), clock=clock, consumer_class=CountingConsumer, schemas_class=SlowSchemas)
    totals = sink.run(until_idle=IDLE_SECONDS)
    assert (totals.read, totals.invalid, totals.stored) == (13, 12, 1)
    assert max(requests) == 3
    assert_balanced(tenant)


def test_an_event_that_expires_between_the_insert_and_the_ledger_line_counts_as_stored(tenant: Tenant) -> None:
    class Later(Clock):
        def now(self) -> datetime:
            return datetime.now(UTC) + timedelta(days=700)

    put_events(tenant, [make_event(number) for number in range(10)])
    run_sink(tenant)
    tenant.administrator().command(f"TRUNCATE TABLE {tenant.database}.ledger")
    totals = Sink(sink_settings(tenant), clock=Later()).run(until_idle=IDLE_SECONDS)
    assert (totals.stored, totals.expired) == (10, 0)
    assert dead_letters(tenant) == []


def test_the_nil_uuid_is_a_valid_id(tenant: Tenant) -> None:
    event = make_event(1, id=UUID(int=0))
    put_events(tenant, [event, make_event(2), event], partition=0)
    totals = run_sink(tenant)
    assert (totals.stored, totals.duplicates, totals.conflicts) == (2, 1, 0)


@pytest.mark.parametrize("text", [b"User \xff!", b"User \0!!"])
def test_a_text_with_nul_or_invalid_utf8_is_refused_whatever_the_other_records_are(tenant: Tenant, text: bytes) -> None:
    writer = schema_id(tenant)
    sound = encode(make_event(1, actor=Entity(id="u", type="user", name="User 1!!")), writer)
    broken = encode(make_event(2, actor=Entity(id="u", type="user", name="User 1!!")), writer)
    broken = broken.replace(b"User 1!!"[: len(text)] if len(text) == 8 else b"User 1!", text)
    put(tenant, [sound, broken], partition=0)
    put(tenant, [broken, sound[:-4]], partition=1)
    totals = run_sink(tenant)
    assert (totals.stored, totals.invalid) == (1, 3)
    assert_balanced(tenant)


def test_an_escaped_nul_is_refused_and_an_escaped_backslash_is_not(tenant: Tenant) -> None:
    writer = schema_id(tenant)
    fine = make_event(1, payload={"text": "\\u0000 of a path"})
    values = [encode(fine, writer), encode(make_event(2, payload={"text": "\\u0000"}), writer)]
    values[1] = values[1].replace(b"\\\\u0000", b"a\\u0000")
    put(tenant, values, partition=0)
    totals = run_sink(tenant)
    assert (totals.stored, totals.invalid) == (1, 1)
    assert [dead_letter.reason for dead_letter in dead_letters(tenant)] == ["text"]


def _wait_for_rows(tenant: Tenant, rows: int) -> None:
    deadline = time.monotonic() + 60
    while count(tenant) < rows:
        assert time.monotonic() < deadline, "did not come true within 60 s"
        time.sleep(0.2)
