import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from uuid import UUID

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka import admin as kafka_admin

from auditstream_ops.commands.confirmation import operator
from auditstream_ops.dead_letters.content import RecordDecoder
from auditstream_ops.dead_letters.dead_letter import RESOLUTION, DeadLetter, DeadLetterReader
from auditstream_ops.dead_letters.filter import DeadLetterFilter
from auditstream_ops.dead_letters.resolver import REPLAYED_FROM
from auditstream_schemas.codec import SCHEMA_JSON, encode, encode_body
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.registry import RegistryClient
from auditstream_sink.dead_letters import OMITTED, OMITTED_HEADERS, REASON, SOURCE_OFFSET, SOURCE_TOPIC
from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.pipeline import (
    assert_balanced,
    count,
    dead_letters,
    put,
    put_events,
    run_sink,
    schema_id,
    sink_settings,
)

TRACE = ("trace", b"t-1")


def dlq(
    tenant: Tenant, *arguments: str, status: int = 0, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Run `auditstream dlq`, away from any terminal."""
    result = subprocess.run(
        [sys.executable, "-m", "auditstream_ops", "dlq", *arguments],
        env={**os.environ, **tenant.env, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert result.returncode == status, result.stderr
    return result


def listed(tenant: Tenant, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in dlq(tenant, "list", "--json", *arguments).stdout.splitlines()]


def result(tenant: Tenant, *arguments: str) -> dict[str, int]:
    report: dict[str, int] = json.loads(dlq(tenant, *arguments, "--yes", "--json").stdout)
    return report


def put_record(tenant: Tenant, value: bytes | None, key: bytes | None) -> None:
    producer = Producer({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
    producer.produce(tenant.topic, value=value, key=key, headers=[TRACE, TRACE])
    assert producer.flush(30) == 0


def newer_schema(tenant: Tenant) -> str:
    """A schema that the registry cannot have yet: an event and a string of the tenant's own name."""
    schema = json.loads(SCHEMA_JSON)
    field = {"name": f"region_{tenant.database}", "type": "string", "default": ""}
    return json.dumps({**schema, "fields": [*schema["fields"], field]})


def next_schema_id(tenant: Tenant) -> int:
    """The id that the registry gives to the next new schema."""
    probe = json.dumps({"type": "record", "name": f"probe_{tenant.database}", "fields": []})
    return RegistryClient(tenant.endpoints.registry_url).register(f"{tenant.database}-probe", probe) + 1


def with_payload(event: AuditEvent, payload: str, writer: int) -> bytes:
    """The event with a payload that the SDK would refuse, of the same length as its own."""
    own = event.payload.encode()
    assert len(own) == len(payload.encode())
    return encode(event, writer).replace(own, payload.encode())


def on_topic(tenant: Tenant, topic: str) -> list[Message]:
    """Everything that lies on a topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": tenant.endpoints.bootstrap_servers,
            "group.id": "look",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    unread = set(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in unread])
    messages: list[Message] = []
    deadline = time.monotonic() + 60
    while unread:
        assert time.monotonic() < deadline, f"no end of {topic}[{unread}]"
        for message in consumer.consume(500, 0.1):
            if message.error() is None:
                messages.append(message)
            else:
                unread.discard(message.partition() or 0)
    consumer.close()
    return messages


def own_headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    return cast("list[tuple[str, str | bytes | None]]", message.headers() or [])


def stored_ids(tenant: Tenant) -> set[str]:
    client = tenant.administrator()
    return {row[0] for row in client.query(f"SELECT toString(id) FROM {tenant.database}.events").result_rows}


def test_dead_letters_are_replayed_after_the_cause_is_repaired(tenant: Tenant) -> None:
    first = make_event(1)
    conflicting = replace(first, success=not first.success)
    late = [make_event(10), make_event(11)]
    writer = next_schema_id(tenant)
    newer = [b"\0" + writer.to_bytes(4) + encode_body(event) + b"\x0aearth" for event in late]
    put_events(tenant, [first, conflicting], partition=0)
    for event, value in zip(late, newer, strict=True):
        put_record(tenant, value, str(event.id).encode())
    put_record(tenant, b"rubbish", None)
    put_record(tenant, None, b"its key")
    assert run_sink(tenant).invalid == 4

    registry = RegistryClient(tenant.endpoints.registry_url)
    assert registry.register(f"{tenant.topic}-value", newer_schema(tenant)) == writer
    before = len(on_topic(tenant, tenant.topic))
    dry = dlq(tenant, "replay", "--reason", "unknown_schema", "--dry-run")
    assert "would replay 2 dead letters (2 unknown_schema)" in dry.stderr
    assert len(on_topic(tenant, tenant.topic)) == before
    assert not listed(tenant, "--state", "replayed")

    assert result(tenant, "replay", "--reason", "unknown_schema", "--why", "schema registered") == {
        "matched": 2,
        "resolved_before": 0,
        "replayed": 2,
        "undelivered": 0,
        "unresolved": 0,
    }
    assert result(tenant, "replay")["replayed"] == 3
    # All are resolved now: nothing is left to do, which is not a failure.
    assert result(tenant, "replay") == {
        "matched": 5,
        "resolved_before": 5,
        "replayed": 0,
        "undelivered": 0,
        "unresolved": 0,
    }

    again = {}
    for message in on_topic(tenant, tenant.topic):
        headers = own_headers(message)
        source = dict(headers).get(REPLAYED_FROM)
        if source is not None:
            assert [name for name, _ in headers if name.startswith("auditstream.")] == [REPLAYED_FROM]
            again[cast("bytes", source).decode()] = (message.key(), message.value(), headers[:-1])
    resolved = dead_letters(tenant)
    assert again == {
        f"{dead_letter.topic_id}/{dead_letter.partition}/{dead_letter.offset}": (
            dead_letter.key,
            dead_letter.content,
            [] if dead_letter.reason == "conflict" else [TRACE, TRACE],
        )
        for dead_letter in resolved
    }
    assert {dead_letter.content for dead_letter in resolved} >= {*newer, None, b"rubbish"}

    totals = run_sink(tenant)
    assert (totals.read, totals.stored, totals.conflicts, totals.invalid) == (5, 2, 1, 2)
    assert stored_ids(tenant) == {str(event.id) for event in (first, *late)}
    assert_balanced(tenant)
    rows = listed(tenant)
    assert sorted((dead_letter["reason"], dead_letter["state"]) for dead_letter in rows) == [
        ("conflict", "open"),
        ("conflict", "replayed"),
        ("unknown_schema", "replayed"),
        ("unknown_schema", "replayed"),
        ("wire_format", "open"),
        ("wire_format", "open"),
        ("wire_format", "replayed"),
        ("wire_format", "replayed"),
    ]
    at = {(message.partition(), message.offset()): message for message in on_topic(tenant, tenant.topic)}
    for dead_letter in listed(tenant, "--reason", "unknown_schema"):
        resolution = dead_letter["resolution"]
        assert (resolution["by"], resolution["why"], resolution["edited"]) == (operator(), "schema registered", False)
        replayed = at[resolution["partition"], resolution["offset"]]
        assert replayed.value() in newer
        assert dead_letter["key"] == (replayed.key() or b"").decode()

    # As after a crash between the record and its resolution record: the sink finds the id.
    assert result(tenant, "replay", "--reason", "unknown_schema", "--again")["replayed"] == 2
    totals = run_sink(tenant)
    assert (totals.read, totals.stored, totals.duplicates) == (2, 0, 2)
    assert_balanced(tenant)


def test_an_edited_event_is_stored_under_the_id_of_its_dead_letter(tenant: Tenant, tmp_path: Path) -> None:
    writer = schema_id(tenant)
    broken = make_event(2, action="invoice.void", payload={"number": 2.50})
    free = make_event(3, action="invoice.void", payload={"number": 3.50})
    put(tenant, [with_payload(broken, '{"number":2.5,', writer)], key=str(broken.id), partition=0)
    put(tenant, [with_payload(free, '{"number":3.5,', writer)], partition=0)
    put(tenant, [b"rubbish"], partition=0)
    assert run_sink(tenant).invalid == 3
    name, other, rubbish = (f"{tenant.topic}[0]@{offset}" for offset in range(3))
    event = tmp_path / "event.json"

    def edit(dead_letter: str, *arguments: str, status: int = 0) -> str:
        result = dlq(tenant, "replay", dead_letter, "--edit", str(event), "--yes", *arguments, status=status)
        return result.stderr if status else result.stdout

    decoded = json.loads(dlq(tenant, "show", name, "--event").stdout)
    assert decoded["payload"] == '{"number":2.5,'
    event.write_text(json.dumps(decoded), "utf-8")
    assert "payload: was " in edit(name, status=1)
    repaired = {**decoded, "payload": {"number": 2.5}}
    event.write_text(json.dumps({**repaired, "id": str(UUID(int=7))}), "utf-8")
    assert "--new-id" in edit(name, status=1)
    event.write_text(json.dumps({**repaired, "action": "project.env_var.delete"}), "utf-8")
    assert "breaks its schema" in edit(name, status=1)
    event.write_text(json.dumps(repaired), "utf-8")
    assert (
        "exactly one dead letter, and 3 match" in dlq(tenant, "replay", "--edit", str(event), "--yes", status=1).stderr
    )
    assert "cannot be read" in edit(rubbish, status=1)
    assert not listed(tenant, "--state", "replayed")

    assert edit(name, "--why", "a comma too many") == "replayed 1 of 1 matching dead letters\n"
    assert "resolved before" in edit(name, status=1)
    event.write_text(json.dumps({**repaired, "id": str(UUID(int=7))}), "utf-8")
    edit(other, "--new-id")
    del repaired["id"]
    event.write_text(json.dumps(repaired), "utf-8")
    edit(rubbish, "--new-id")

    totals = run_sink(tenant)
    assert (totals.read, totals.stored) == (3, 3)
    assert {str(broken.id), str(UUID(int=7))} < stored_ids(tenant)
    client = tenant.administrator()
    rows = client.query(f"SELECT payload FROM {tenant.database}.events WHERE id = '{broken.id}'").result_rows
    assert rows == [('{"number":2.5}',)]
    keys = {message.key() for message in on_topic(tenant, tenant.topic)}
    assert str(UUID(int=7)).encode() in keys
    assert_balanced(tenant)
    text = dlq(tenant, "list", name).stdout
    assert ", edited: a comma too many)" in text
    assert f"to {tenant.topic}[" in text


def put_four(tenant: Tenant) -> tuple[AuditEvent, list[str]]:
    """Put an event that is too old, one of the future, a record of rubbish and rubbish; names in this order."""
    now = time.time_ns()
    year = 366 * 24 * 3600 * 10**9
    old = make_event(4, action="project.env_var.delete", occurred_at=now - year, payload={"big": 1})
    ahead = make_event(5, action="user.logged_in", occurred_at=now + year, metadata={"esc": "\x1b[2J"})
    put_events(tenant, [old], partition=0)
    put_events(tenant, [ahead], partition=1)
    put(tenant, [b"\0" + schema_id(tenant).to_bytes(4) + b"\xff" * 600, b"x" * 20], partition=2)
    run_sink(tenant)
    assert count(tenant) == 0
    return old, [f"{tenant.topic}[{partition}]@{offset}" for partition, offset in ((0, 0), (1, 0), (2, 0), (2, 1))]


def test_dead_letters_are_filtered_and_dropped(tenant: Tenant) -> None:
    _, (expired, ahead, undecodable, rubbish) = put_four(tenant)
    rows = listed(tenant)
    assert {dead_letter["dead_letter"]: dead_letter["reason"] for dead_letter in rows} == {
        expired: "expired",
        ahead: "future",
        undecodable: "undecodable",
        rubbish: "wire_format",
    }
    decoder = RecordDecoder(RegistryClient(tenant.endpoints.registry_url))
    everything = dead_letters(tenant)

    def matching(**conditions: Any) -> set[str]:
        selected = DeadLetterFilter(**conditions)
        return {dead_letter.name for dead_letter in everything if selected.matches(dead_letter, decoder)}

    assert matching(actions=("project.*",)) == {expired}
    assert matching(actions=("*",)) == {expired, ahead}
    assert matching(actions=("user.logged_i?", "project.env_var")) == {ahead}
    conditions = ["--action", "*", "--reason", "future", "--reason", "undecodable", "--from", "2020-01-01", "--to"]
    conditions += ["2200-01-01T00:00:00+01:00", "--topic-id", rows[0]["topic_id"], "--limit", "7", "--offset", "0"]
    assert [dead_letter["dead_letter"] for dead_letter in listed(tenant, *conditions, "--state", "open")] == [ahead]
    assert len(listed(tenant, "--limit", "3")) == 3

    nowhere = f"{tenant.topic}[0]@99"
    assert (
        f"no such dead letter: {nowhere}"
        in dlq(tenant, "drop", rubbish, nowhere, "--why", "x", "--yes", status=1).stderr
    )
    assert "no dead letter matches" in dlq(tenant, "replay", "--reason", "trailing", "--yes", status=1).stderr
    before = len(on_topic(tenant, tenant.topic))
    assert result(tenant, "drop", "--partition", "2", "--why", "a load test") == {
        "matched": 2,
        "resolved_before": 0,
        "dropped": 2,
        "undelivered": 0,
    }
    assert {dead_letter.name: dead_letter.state for dead_letter in dead_letters(tenant)} == {
        expired: "open",
        ahead: "open",
        undecodable: "dropped",
        rubbish: "dropped",
    }
    line = dlq(tenant, "list", rubbish).stdout
    assert "  wire_format          dropped (" in line
    assert f" by {operator()}: a load test)  the message starts" in line
    assert result(tenant, "replay", rubbish)["replayed"] == 0
    assert len(on_topic(tenant, tenant.topic)) == before
    assert dlq(tenant, "show", rubbish, "--raw").stdout == "x" * 20


def test_a_dead_letter_is_shown_and_a_person_confirms(tenant: Tenant) -> None:
    old, (expired, ahead, undecodable, rubbish) = put_four(tenant)
    text = dlq(tenant, "show", ahead).stdout
    assert "\x1b" not in text
    assert json.loads(text.partition("\n\n")[2])["metadata"] == {"esc": "\x1b[2J"}
    assert json.loads(dlq(tenant, "show", expired, "--event").stdout) == json.loads(old.to_json())
    text = dlq(tenant, "show", undecodable).stdout
    assert "not decodable" in text
    assert "00000000  00 " in text
    assert text.endswith("and 93 bytes more: --raw writes them all\n")
    assert "cannot be decoded" in dlq(tenant, "show", rubbish, "--event", status=1).stderr
    whole = json.loads(dlq(tenant, "show", expired, "--json").stdout)
    assert (whole["record"]["payload"], whole["record"]["id"]) == ('{"big":1}', str(old.id))
    assert "more than one dead letter" in dlq(tenant, "show", status=1).stderr
    # The registry is not needed to show a dead letter.
    away = {"AUDITSTREAM_SCHEMA_REGISTRY_URL": "http://127.0.0.1:9"}
    assert "cannot be reached" in dlq(tenant, "show", expired, environment=away).stdout

    before = len(on_topic(tenant, tenant.topic))
    status, said = answered(tenant, "n", "replay", expired, ahead)
    assert "Replay 2 dead letters (1 expired, 1 future)? [y/N]" in said
    assert status == 1
    status, said = answered(tenant, "y", "drop", "--why", "mine", "--reason", "wire_format")
    assert "Drop 1 dead letter (1 wire_format)? [y/N]" in said
    assert status == 0
    assert {dead_letter.name for dead_letter in dead_letters(tenant) if dead_letter.state != "open"} == {rubbish}
    assert len(on_topic(tenant, tenant.topic)) == before


def answered(tenant: Tenant, answer: str, *arguments: str) -> tuple[int, str]:
    """Run `auditstream dlq` with a terminal on its standard input that gives an answer."""
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    result = subprocess.run(
        [sys.executable, "-m", "auditstream_ops", "dlq", *arguments],
        env={**os.environ, **tenant.env},
        stdin=theirs,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    os.close(ours)
    os.close(theirs)
    return result.returncode, result.stderr


def test_a_dead_letter_is_listed_once_and_other_records_never(tenant: Tenant) -> None:
    put(tenant, [b"one", b"two"], partition=0)
    put_record(tenant, b"three", b"key")
    forged = Producer({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
    # A record whose own headers look like a resolution of another dead letter.
    forged.produce(tenant.topic, value=b"four", partition=1, headers=[(RESOLUTION, b"dropped"), (REASON, b"none")])
    assert forged.flush(30) == 0
    run_sink(tenant)
    once = on_topic(tenant, tenant.dlq_topic)
    assert len(once) == 4
    result(tenant, "drop", f"{tenant.topic}[0]@0", "--why", "first")
    # A sink that was killed before it wrote the ledger writes the same dead letters again.
    again = Producer({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
    for message in once:
        again.produce(tenant.dlq_topic, value=message.value(), key=message.key(), headers=message.headers())
    again.produce(tenant.dlq_topic, value=b"not ours")
    assert again.flush(30) == 0
    refused = dead_letters(tenant)
    assert sorted(dead_letter.value for dead_letter in refused) == [b"four", b"one", b"three", b"two"]
    assert {dead_letter.reason for dead_letter in refused} == {"wire_format"}
    assert {dead_letter.value: dead_letter.state for dead_letter in refused}[b"one"] == "dropped"
    assert {dead_letter.value: dead_letter.state for dead_letter in refused}[b"four"] == "open"
    assert result(tenant, "replay") == {
        "matched": 4,
        "resolved_before": 1,
        "replayed": 3,
        "undelivered": 0,
        "unresolved": 0,
    }
    before = len(on_topic(tenant, tenant.topic))
    elsewhere = [*own_headers(once[0]), (SOURCE_TOPIC, b"gone"), (SOURCE_OFFSET, b"77")]
    again.produce(tenant.dlq_topic, value=b"five", headers=elsewhere)
    assert again.flush(30) == 0
    assert "topic gone: " in dlq(tenant, "replay", "--again", "--yes", status=1).stderr
    assert len(on_topic(tenant, tenant.topic)) == before
    missing = {"AUDITSTREAM_DEAD_LETTER_TOPIC": f"{tenant.topic}.missing"}
    assert "auditstream topics" in dlq(tenant, "list", status=1, environment=missing).stderr
    assert dlq(tenant, "list", "--state", "open").stdout.count("\n") == 1
    # Four dead letters twice, a foreign record, one of another topic, resolutions of a drop and of three replays.
    assert len(on_topic(tenant, tenant.dlq_topic)) == 14
    totals = run_sink(tenant)
    assert (totals.read, totals.invalid) == (3, 3)
    assert_balanced(tenant)


def test_a_record_whose_headers_cannot_be_read_is_kept_without_them(tenant: Tenant, backend: str) -> None:
    program = shutil.which("kcat")
    if program is None or backend == "local":
        pytest.skip("needs kcat (our own client writes no such header), and a broker that it can talk to")
    at = ["-b", tenant.endpoints.bootstrap_servers, "-t", tenant.topic, "-p", "0"]
    subprocess.run([program, *at, "-P", "-H", b"\xff=v", "-H", "trace=1"], input=b"rubbish\n" * 50, check=True)
    put(tenant, [b"more"], partition=0)
    assert run_sink(tenant).invalid == 51
    *broken, other = dead_letters(tenant)
    assert {dead_letter.value for dead_letter in broken} == {b"rubbish"}
    assert {dict(dead_letter.headers)[OMITTED_HEADERS] for dead_letter in broken} == {b"a header's name is not UTF-8"}
    assert OMITTED_HEADERS not in dict(other.headers)
    # A foreign record among the dead letters is skipped.
    at[3] = tenant.dlq_topic
    subprocess.run([program, *at, "-P", "-H", b"\xff=v"], input=b"foreign\n" * 50, check=True)
    assert result(tenant, "replay")["replayed"] == 51


def test_a_record_too_large_for_the_dead_letter_topic_leaves_a_dead_letter_without_it(
    tenant: Tenant, backend: str
) -> None:
    if backend == "local":
        pytest.skip("Tansu has no limit on a record; see test-kafka")
    _limit_record_bytes(tenant, 4_000)
    put_record(tenant, b"x" * 9_000, b"short")
    put_record(tenant, None, b"k" * 9_000)
    assert run_sink(tenant).invalid == 2
    by_key = {dead_letter.key: dead_letter for dead_letter in dead_letters(tenant)}
    assert set(by_key) == {b"short", None}
    assert all(dead_letter.is_omitted and dead_letter.content is None for dead_letter in by_key.values())
    assert "9000 bytes, SHA-256 " in str(dict(by_key[b"short"].headers)[OMITTED])
    assert "too large" in dlq(tenant, "replay", "--yes", status=1).stderr
    assert result(tenant, "drop", "--why", "junk")["dropped"] == 2


def test_many_dead_letters_are_streamed_and_replayed_in_chunks(tenant: Tenant) -> None:
    values = [f"rubbish {number}".encode() for number in range(1_700)]
    put(tenant, values)
    run_sink(tenant)
    with DeadLetterReader(sink_settings(tenant)) as reader:
        assert len(_first(reader, 3)) == 3
        assert len(_first(reader, 5_000)) == 1_700
        # Written after the reader was made, so not read by it: a replay does not replay what it causes.
        producer = Producer({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
        headers = [*own_headers(on_topic(tenant, tenant.dlq_topic)[0]), (SOURCE_OFFSET, b"999999")]
        producer.produce(tenant.dlq_topic, value=b"later", headers=headers)
        assert producer.flush(30) == 0
        assert len(_first(reader, 5_000)) == 1_700
    assert result(tenant, "replay")["replayed"] == 1_701
    assert {dead_letter.state for dead_letter in dead_letters(tenant)} == {"replayed"}
    replayed = [message.value() for message in on_topic(tenant, tenant.topic) if message.headers()]
    assert sorted(map(str, replayed)) == sorted(map(str, [*values, b"later"]))


def _limit_record_bytes(tenant: Tenant, limit: int) -> None:
    kafka: Any = kafka_admin
    entry = kafka.ConfigEntry("max.message.bytes", str(limit), incremental_operation=kafka.AlterConfigOpType.SET)
    topic = kafka.ConfigResource(kafka.ResourceType.TOPIC, tenant.dlq_topic, incremental_configs=[entry])
    client = kafka.AdminClient({"bootstrap.servers": tenant.endpoints.bootstrap_servers})
    client.incremental_alter_configs([topic])[topic].result(30)


def _first(reader: DeadLetterReader, limit: int) -> Sequence[DeadLetter]:
    return [dead_letter for dead_letter, _ in zip(reader.dead_letters(), range(limit), strict=False)]
