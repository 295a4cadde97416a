import base64
import json
import time
from io import BytesIO, StringIO
from typing import Any
from uuid import UUID

import pytest

from auditstream_producer import DeliveryFailure
from auditstream_producer.ndjson import MAX_LINE_BYTES, NdjsonEmitter, Rejects, read_lines
from auditstream_producer.testing import CapturingProducer
from auditstream_schemas.codec import encode_body
from auditstream_schemas.event import AuditEvent

SHORT: dict[str, Any] = {
    "action": "unlisted.thing.done",
    "actor": {"id": "1", "type": "user"},
    "target": {"id": "2", "type": "thing"},
}
FULL = SHORT | {
    "payload": {"n": 9007199254740993},
    "occurred_at": "2024-02-29T23:59:59.123456789Z",
    "id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "version": 3,
}


def line(**changes: Any) -> bytes:
    return json.dumps(SHORT | changes).encode()


def emit(content: bytes, **producer_settings: Any) -> tuple[CapturingProducer, list[dict[str, Any]], int]:
    """Emit all of ``content``; return the producer, the rows of the rejects file, and the number of lines."""
    file = StringIO()
    producer, rejects = CapturingProducer(**producer_settings), Rejects(file)
    emitter = NdjsonEmitter(producer, rejects, patience=0)
    for ndjson_line in read_lines(BytesIO(content)):
        assert emitter.emit_line(ndjson_line, keep_waiting=lambda: True)
    written = [json.loads(text) for text in file.getvalue().splitlines()]
    assert rejects.refused == len(written) == emitter.lines - len(producer.events)
    return producer, written, emitter.lines


def test_the_fields_of_a_line_are_preserved() -> None:
    producer, rejected, _ = emit(json.dumps(FULL).encode() + b"\n")
    assert not rejected
    (event,) = producer.events
    assert event == AuditEvent.from_json(json.dumps(FULL))


def test_missing_fields_of_a_line_are_filled_in() -> None:
    before = time.time_ns()
    producer, rejected, _ = emit(line() + b"\n" + line())
    assert not rejected
    first, second = producer.events
    assert first.id != second.id
    assert first.id.version == 7
    assert first.version == 1
    assert before <= first.occurred_at <= second.occurred_at <= time.time_ns()


@pytest.mark.parametrize(
    "content",
    [
        line() + b"\n\n  \n" + line(),
        line() + b"\r\n" + line() + b"\r\n",
        b"\xef\xbb\xbf" + line() + b"\n" + line() + b"\n",
    ],
    ids=["blank lines", "CR LF", "byte order mark"],
)
def test_blank_lines_line_ends_and_byte_order_marks_are_skipped(content: bytes) -> None:
    producer, rejected, lines = emit(content)
    assert (len(producer.events), rejected, lines) == (2, [], 2)


def test_a_refused_line_is_written_with_its_number_and_faults() -> None:
    bad = line(action="Nope", version=0)
    producer, rejected, _ = emit(line() + b"\n\n" + bad + b"\n" + line())
    assert len(producer.events) == 2
    (row,) = rejected
    assert row["line"] == 3
    assert row["text"] == bad.decode()
    assert [error["field"] for error in row["errors"]] == ["action", "version"]
    assert row["errors"][1] | {"expected": ""} == {"field": "version", "was": "0", "expected": ""}
    assert "id" not in row


@pytest.mark.parametrize("bad", [b"{", b"[1]", b'"text"', b"null", b"{}", b"{" * 100_000])
def test_other_json_is_refused(bad: bytes) -> None:
    producer, rejected, _ = emit(bad + b"\n" + line())
    assert len(producer.events) == 1
    assert [row["text"] for row in rejected] == [bad.decode()]


def test_a_line_that_is_not_utf8_is_refused_and_preserved_as_base64() -> None:
    bad = b'{"action": "\xff\xfe"}'
    producer, rejected, _ = emit(bad + b"\n" + line())
    assert len(producer.events) == 1
    assert base64.b64decode(rejected[0]["base64"]) == bad
    assert "UTF-8" in rejected[0]["reason"]


def test_a_line_that_is_too_long_is_refused_and_shortened() -> None:
    long = b'{"a":"' + b"x" * (MAX_LINE_BYTES * 2) + b'"}'
    producer, rejected, _ = emit(line() + b"\n" + long + b"\n" + line() + b"\n" + long)
    assert len(producer.events) == 2
    assert [row["line"] for row in rejected] == [2, 4]
    assert str(len(long) + 1) in rejected[0]["reason"]
    assert long.startswith(rejected[0]["text"].encode())
    assert len(rejected[0]["text"]) == 1000


def test_the_longest_line_is_read() -> None:
    content = line()
    (longest,) = read_lines(BytesIO(content + b" " * (MAX_LINE_BYTES - len(content)) + b"\n"))
    assert not longest.too_long
    assert longest.size == MAX_LINE_BYTES + 1


def test_strict_mode_refuses_unlisted_actions() -> None:
    producer, rejected, _ = emit(line(), catalog_mode="strict")
    assert not producer.events
    assert "unlisted.thing.done" in rejected[0]["reason"]
    assert rejected[0]["errors"] == []


def test_a_queue_that_stays_full_stops_at_the_line_that_was_not_accepted() -> None:
    rejects = Rejects(None)
    emitter = NdjsonEmitter(CapturingProducer(queue_events=1), rejects, patience=0)
    first, second = read_lines(BytesIO(line() + b"\n" + line()))
    assert emitter.emit_line(first, keep_waiting=lambda: True)
    assert not emitter.emit_line(second, keep_waiting=lambda: True)
    assert (emitter.lines, rejects.refused) == (1, 0)


def test_the_caller_can_end_the_wait_for_a_full_queue() -> None:
    emitter = NdjsonEmitter(CapturingProducer(queue_events=0), Rejects(None), patience=1e9)
    (only,) = read_lines(BytesIO(line()))
    assert not emitter.emit_line(only, keep_waiting=lambda: False)


def test_an_undelivered_event_is_written_with_its_id() -> None:
    event = AuditEvent.from_json(json.dumps(FULL))
    file = StringIO()
    rejects = Rejects(file)
    rejects.on_error(DeliveryFailure(event_id=event.id, reason="broker away", body=encode_body(event), tag=17))
    row = json.loads(file.getvalue())
    assert (row["line"], row["reason"], UUID(row["id"])) == (17, "broker away", event.id)
    assert AuditEvent.from_json(row["text"]) == event
    assert (rejects.refused, rejects.undelivered) == (0, 1)


def test_only_the_first_rejects_stay_in_memory() -> None:
    rejects = Rejects(None, keep=2)
    emitter = NdjsonEmitter(CapturingProducer(), rejects, patience=0)
    for ndjson_line in read_lines(BytesIO(b"{}\n" * 5)):
        emitter.emit_line(ndjson_line, keep_waiting=lambda: True)
    assert rejects.refused == 5
    assert [rejected.line for rejected in rejects.first] == [1, 2]
