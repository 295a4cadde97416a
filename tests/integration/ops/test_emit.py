import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from auditstream_schemas.catalog import catalog
from auditstream_schemas.codec import decode
from auditstream_schemas.event import AuditEvent
from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.late_port import LatePort

WAIT = 60
PARTITIONS = 3


def event_lines(count: int) -> list[str]:
    return [make_event(number, action="unlisted.thing.done").to_json() for number in range(count)]


def start(tenant: Tenant, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "auditstream_ops", "emit", *map(str, arguments)],
        env={**os.environ, **tenant.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(tenant: Tenant, *arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run ``auditstream emit``; return its exit code, standard output and standard error."""
    process = start(tenant, *arguments)
    out, err = process.communicate(stdin, timeout=WAIT)
    return process.returncode, out.decode(), err.decode()


def run_json(tenant: Tenant, *arguments: str | Path, stdin: bytes = b"") -> tuple[int, dict[str, Any]]:
    code, out, err = run(tenant, *arguments, "--json", stdin=stdin)
    assert out, err
    return code, json.loads(out)


def counts(**changes: Any) -> dict[str, Any]:
    nothing = {"lines": 0, "accepted": 0, "refused": 0, "delivered": 0, "undelivered": 0, "stopped_at_line": None}
    return nothing | changes


def read_events(tenant: Tenant, expected: int) -> list[AuditEvent]:
    """All events on the tenant's topic: waits for ``expected`` records, and a second for more."""
    consumer = Consumer(
        {"bootstrap.servers": tenant.endpoints.bootstrap_servers, "group.id": tenant.group, "enable.auto.commit": False}
    )
    try:
        consumer.assign([TopicPartition(tenant.topic, partition, 0) for partition in range(PARTITIONS)])
        messages = consumer.consume(expected, timeout=WAIT) + consumer.consume(1000, timeout=1)
    finally:
        consumer.close()
    return sorted((decode(message.value() or b"") for message in messages), key=lambda event: event.id)


def test_every_event_of_a_file_is_delivered(tenant: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    lines = event_lines(500) + [json.dumps(entry.example) for entry in catalog().values()]
    file.write_text("\n".join(lines), "utf-8")
    code, out, err = run(tenant, file)
    assert (code, out, err) == (0, f"accepted {len(lines)}, refused 0, delivered {len(lines)}, undelivered 0\n", "")
    expected = sorted((AuditEvent.from_json(line) for line in lines), key=lambda event: event.id)
    assert read_events(tenant, len(lines)) == expected


def test_missing_id_version_and_time_are_filled_in(tenant: Tenant) -> None:
    short = {"action": "a.b", "actor": {"id": "1", "type": "user"}, "target": {"id": "2", "type": "thing"}}
    content = "".join(f"{json.dumps(short)}\n" for _ in range(3)).encode()
    assert run_json(tenant, "-", stdin=content) == (0, counts(lines=3, accepted=3, delivered=3))
    events = read_events(tenant, 3)
    assert len({event.id for event in events}) == 3
    assert {(event.id.version, event.version) for event in events} == {(7, 1)}


def test_the_same_file_twice_sends_the_same_ids_twice(tenant: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(event_lines(20)), "utf-8")
    for _ in range(2):
        assert run_json(tenant, file) == (0, counts(lines=20, accepted=20, delivered=20))
    events = read_events(tenant, 40)
    assert len(events) == 40
    assert len(set(events)) == 20


def test_an_empty_input_is_not_an_error(tenant: Tenant) -> None:
    assert run_json(tenant, "-") == (0, counts())


def test_refused_lines_are_written_with_reasons_and_the_others_are_sent(tenant: Tenant, tmp_path: Path) -> None:
    good = event_lines(2)
    wrong_payload = json.dumps(catalog()["context.create"].example | {"payload": {"nothing": "like it"}})
    content = b"\n".join([good[0].encode(), b"{", b'\xff"', b"", wrong_payload.encode(), good[1].encode()])
    rejects = tmp_path / "rejects.ndjson"
    rejects.write_text("of an earlier run\n")
    code, result = run_json(tenant, "-", "--rejects", rejects, stdin=content)
    assert code == 1
    assert result == counts(lines=5, accepted=2, refused=3, delivered=2)
    rejected = [json.loads(line) for line in rejects.read_text("utf-8").splitlines()]
    assert [entry["line"] for entry in rejected] == [2, 3, 5]
    assert rejected[2]["text"] == wrong_payload
    assert "context.create" in rejected[2]["reason"]
    assert len(read_events(tenant, 2)) == 2


def test_without_a_rejects_file_the_first_reasons_are_printed(tenant: Tenant) -> None:
    code, out, err = run(tenant, "-", stdin=b"{}\n" * 8)
    assert code == 1
    assert out == "accepted 0, refused 8, delivered 0, undelivered 0\n"
    reasons = err.splitlines()
    assert [line.split(":")[0] for line in reasons] == [*(f"line {number}" for number in range(1, 6)), "and 3 more"]
    assert "action: was missing" in reasons[0]


def test_strict_refuses_unlisted_actions(tenant: Tenant) -> None:
    content = "\n".join([*event_lines(1), json.dumps(catalog()["user.create"].example)]).encode()
    code, result = run_json(tenant, "-", "--strict", stdin=content)
    assert (code, result) == (1, counts(lines=2, accepted=1, refused=1, delivered=1))


def test_a_full_queue_delays_but_does_not_fail(tenant: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(event_lines(300)), "utf-8")
    code, result = run_json(tenant, file, "--producer-queue-events", "10")
    assert (code, result) == (0, counts(lines=300, accepted=300, delivered=300))
    assert len(set(read_events(tenant, 300))) == 300


def test_undelivered_events_can_be_sent_again_from_the_rejects(tenant: Tenant, tmp_path: Path) -> None:
    short = {"action": "a.b", "actor": {"id": "1", "type": "user"}, "target": {"id": "2", "type": "thing"}}
    content = "".join(f"{json.dumps(short)}\n" for _ in range(5)).encode()
    rejects = tmp_path / "rejects.ndjson"
    with LatePort(tenant.endpoints.bootstrap_servers) as away:
        nowhere = replace(tenant, env={**tenant.env, "AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS": away.address})
        code, result = run_json(nowhere, "-", "--rejects", rejects, "--timeout", "0.2", stdin=content)
    assert (code, result) == (1, counts(lines=5, accepted=5, undelivered=5))
    rejected = [json.loads(line) for line in rejects.read_text("utf-8").splitlines()]
    assert sorted(entry["line"] for entry in rejected) == [1, 2, 3, 4, 5]
    again = "\n".join(entry["text"] for entry in rejected).encode()
    assert run_json(tenant, "-", stdin=again) == (0, counts(lines=5, accepted=5, delivered=5))
    assert {str(event.id) for event in read_events(tenant, 5)} == {entry["id"] for entry in rejected}


def test_with_a_queue_that_stays_full_the_unsent_lines_are_named(tenant: Tenant) -> None:
    with LatePort(tenant.endpoints.bootstrap_servers) as away:
        nowhere = replace(tenant, env={**tenant.env, "AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS": away.address})
        content = "\n".join(event_lines(9)).encode()
        code, out, err = run(nowhere, "-", "--timeout", "0.2", "--producer-queue-events", "4", "--json", stdin=content)
    assert code == 1
    assert json.loads(out) == counts(lines=4, accepted=4, undelivered=4, stopped_at_line=5)
    assert "stopped: line 5 and those after it were not sent" in err


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_after_a_signal_the_accepted_events_are_sent_and_counted(
    tenant: Tenant, number: signal.Signals, expected: int
) -> None:
    process = start(tenant, "-", "--json")
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in event_lines(50)).encode())
    process.stdin.flush()
    # Standard input stays open: the command waits for more while the events arrive.
    assert len(read_events(tenant, 50)) == 50
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == expected, err
    assert json.loads(out) == counts(lines=50, accepted=50, delivered=50)


def test_a_missing_file_is_named(tenant: Tenant, tmp_path: Path) -> None:
    code, out, err = run(tenant, tmp_path / "nothing.ndjson")
    assert (code, out) == (2, "")
    assert "nothing.ndjson" in err
    assert "No such file" in err


def test_the_rejects_file_may_not_be_the_file_itself(tenant: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(event_lines(1)), "utf-8")
    code, _, err = run(tenant, file, "--rejects", file)
    assert code == 2
    assert "--rejects" in err
    assert file.read_text("utf-8") == event_lines(1)[0]


def test_a_rejects_file_that_cannot_be_written_fails_before_an_event_is_sent(tenant: Tenant, tmp_path: Path) -> None:
    code, out, err = run(tenant, "-", "--rejects", tmp_path / "no" / "rejects", stdin=event_lines(1)[0].encode())
    assert (code, out) == (1, "")
    assert "cannot write the rejects" in err
