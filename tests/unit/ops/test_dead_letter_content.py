import json

from hypothesis import given

from auditstream_ops.dead_letters.content import event_json, hexdump, printable
from auditstream_schemas.codec import decode_record, encode_body
from auditstream_schemas.event import AuditEvent
from tests.support.events import events, make_event


@given(events())
def test_the_json_of_a_valid_record_is_its_event(event: AuditEvent) -> None:
    assert AuditEvent.from_json(event_json(decode_record(encode_body(event)))) == event


def test_a_payload_keeps_its_digits_and_a_broken_payload_becomes_a_string() -> None:
    record = decode_record(encode_body(make_event(1)))
    assert '"payload": {"a":1.10,"b":1E5}' in event_json({**record, "payload": '{"a":1.10, "b":1E5}'})
    for broken in ('{"a": ', "[1]", "", '"\x1b'):
        assert json.loads(event_json({**record, "payload": broken}))["payload"] == broken


def test_the_json_of_an_invalid_event_has_all_of_its_fields() -> None:
    record = decode_record(encode_body(make_event(1)))
    actor = {"id": "", "type": "user", "name": None, "attributes": {"type": "other", "ip": "192.0.2.1"}}
    fields = json.loads(event_json({**record, "actor": actor, "occurred_at": -(2**63), "scope": None}))
    assert fields["actor"] == {"id": "", "type": "user", "attributes": {"type": "other", "ip": "192.0.2.1"}}
    assert fields["occurred_at"] == -(2**63)
    assert "scope" not in fields


def test_a_hexdump_has_offsets_bytes_and_ascii() -> None:
    assert list(hexdump(b"")) == []
    assert list(hexdump(b"\0audit \x7f\xff~")) == [
        "00000000  00 61 75 64 69 74 20 7f ff 7e                    .audit ..~"
    ]
    lines = list(hexdump(bytes(range(33))))
    assert lines[1] == "00000010  10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f  " + "." * 16
    assert lines[2].split() == ["00000020", "20"]


def test_control_characters_are_escaped() -> None:
    assert printable("plain, größer, 刘洋\nnext") == "plain, größer, 刘洋\nnext"
    assert printable("\x1b[2J\x9b\x7f\r\u202e\U000e0001") == "\\u001b[2J\\u009b\\u007f\\r\\u202e\\udb40\\udc01"
    assert json.loads(printable(json.dumps("\x1b\x9b\x7f\U000e0001", ensure_ascii=False))) == "\x1b\x9b\x7f\U000e0001"
