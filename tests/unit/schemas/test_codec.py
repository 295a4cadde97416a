import copy
import io
import json
import struct
import warnings
from collections.abc import Iterator
from typing import Any, cast
from uuid import UUID

import avro.io
import avro.schema
import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstream_schemas.avro_body import varint
from auditstream_schemas.codec import SCHEMA_JSON, decode, decode_body, decode_record, encode, encode_body, split
from auditstream_schemas.errors import InvalidEventError, WireFormatError
from auditstream_schemas.event import AuditEvent
from tests.support.events import events, make_event

SCHEMA: dict[str, Any] = json.loads(SCHEMA_JSON)


def plain(event: AuditEvent) -> dict[str, Any]:
    """The event as a record of an Avro library."""

    def entity(name: str) -> dict[str, Any] | None:
        value = getattr(event, name)
        if value is None:
            return None
        return {"id": value.id, "type": value.type, "name": value.name, "attributes": dict(value.attributes)}

    request = event.request
    return {
        "id": str(event.id),
        "occurred_at": event.occurred_at,
        "action": event.action,
        "version": event.version,
        "actor": entity("actor"),
        "target": entity("target"),
        "payload": str(event.payload),
        "metadata": dict(event.metadata),
        "scope": entity("scope"),
        "success": event.success,
        "request": None if request is None else {"id": request.id, "attributes": dict(request.attributes)},
    }


def without_logical_types(schema: dict[str, Any]) -> dict[str, Any]:
    stripped = copy.deepcopy(schema)
    for field in stripped["fields"][:2]:
        field["type"] = field["type"]["type"]
    return stripped


def avro_bytes(schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(without_logical_types(schema)), record)
    return stream.getvalue()


@given(events(), st.integers(0, 2**32 - 1))
def test_round_trip(event: AuditEvent, schema_id: int) -> None:
    message = encode(event, schema_id)
    assert split(message) == (schema_id, encode_body(event))
    assert decode(message) == event
    assert decode(message, SCHEMA_JSON) == event
    assert encode(decode(message), schema_id) == message


@given(events())
def test_the_bytes_equal_those_of_fastavro(event: AuditEvent) -> None:
    assert encode_body(event) == avro_bytes(SCHEMA, plain(event))
    assert decode_record(encode_body(event)) == plain(event)


@pytest.mark.parametrize("length", [63, 64, 1023, 1024, 1025, 8191, 8192, 100_000])
def test_lengths_are_encoded_correctly_at_their_limits(length: int) -> None:
    event = make_event(0, metadata={"a": "x" * length, **{f"key {number}": "" for number in range(length % 1000)}})
    assert encode_body(event) == avro_bytes(SCHEMA, plain(event))


@pytest.fixture(scope="module")
def apache() -> avro.io.DatumReader:
    with warnings.catch_warnings(action="ignore", category=avro.errors.IgnoredLogicalType):
        return avro.io.DatumReader(avro.schema.parse(SCHEMA_JSON))


@given(event=events())
def test_apache_avro_reads_our_bytes(apache: avro.io.DatumReader, event: AuditEvent) -> None:
    body = encode_body(event)
    stream = io.BytesIO(body)
    record = cast("dict[str, Any]", apache.read(avro.io.BinaryDecoder(stream)))
    assert stream.tell() == len(body)
    assert {**record, "id": str(record["id"])} == plain(event)


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_match_those_of_apache_avro(number: int) -> None:
    stream = io.BytesIO()
    avro.io.BinaryEncoder(stream).write_long(number)
    assert varint(number) == stream.getvalue()


def test_header_is_that_of_the_wire_format() -> None:
    assert encode(make_event(0), 0x01020304)[:5] == b"\x00\x01\x02\x03\x04"


@given(events())
def test_the_id_is_a_slice(event: AuditEvent) -> None:
    message = encode(event, 1)
    assert message[5] == 0x48
    assert message[6:42].decode() == str(event.id)


def test_id_and_time_are_the_first_two_fields() -> None:
    first, second = SCHEMA["fields"][:2]
    assert (first["name"], first["type"]) == ("id", {"type": "string", "logicalType": "uuid"})
    assert (second["name"], second["type"]) == ("occurred_at", {"type": "long", "logicalType": "timestamp-nanos"})


def records(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict) and schema.get("type") == "record":
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from records(part)


def test_every_record_and_field_is_documented() -> None:
    all_records = list(records(SCHEMA))
    assert [record["name"] for record in all_records] == ["AuditEvent", "Entity", "Request"]
    for record in all_records:
        assert record["doc"]
        assert all(field["doc"].endswith(".") for field in record["fields"])


def test_other_avro_libraries_read_nanoseconds_as_integers_too() -> None:
    event = make_event(0, occurred_at="2025-11-03T08:15:30.123456789Z")
    record = fastavro.schemaless_reader(io.BytesIO(encode_body(event)), fastavro.parse_schema(SCHEMA), None)
    assert isinstance(record, dict)
    assert record["id"] == event.id
    assert decode_record(encode_body(event))["occurred_at"] == 1_762_157_730_123_456_789


@pytest.mark.parametrize("message", [b"", b"\x00", b"\x00\x00\x00\x00"])
def test_refuses_a_message_without_header(message: bytes) -> None:
    with pytest.raises(WireFormatError, match=f"the message has {len(message)} bytes, fewer than the 5"):
        split(message)


def test_refuses_a_message_whose_first_byte_is_not_zero() -> None:
    with pytest.raises(WireFormatError, match=r"byte 0x7b instead of 0x00"):
        split(b'{"action":"a.b"}')


def test_every_cut_of_a_body_is_refused_with_the_field_it_breaks_in() -> None:
    body = encode_body(make_event(9))
    fields = []
    for length in range(len(body)):
        with pytest.raises(WireFormatError, match=rf"of a body of {length} bytes, ends too early") as caught:
            decode_body(body[:length])
        fields.append(str(caught.value).split("'")[1])
    assert list(dict.fromkeys(fields)) == [field["name"] for field in SCHEMA["fields"]]


@given(events(), st.binary(min_size=1, max_size=10))
def test_trailing_bytes_are_refused(event: AuditEvent, more: bytes) -> None:
    body = encode_body(event)
    with pytest.raises(WireFormatError, match=rf"ends at byte {len(body)} of a body of {len(body) + len(more)}"):
        decode_body(body + more)


@given(st.binary(max_size=300))
def test_garbage_raises_no_other_error(body: bytes) -> None:
    with pytest.raises(WireFormatError):
        decode_body(body)


@given(events(), st.data())
def test_a_damaged_body_is_an_event_or_a_wire_format_error(event: AuditEvent, data: st.DataObject) -> None:
    body = bytearray(encode_body(event))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_body(bytes(body))
    except WireFormatError as error:
        assert str(error)  # noqa: PT017 (both outcomes are correct)


@pytest.mark.parametrize(
    ("at", "garbage", "reason"),
    [
        (0, varint(2**62), "field 'id', from byte 0"),
        (0, varint(-5), "field 'id', from byte 0"),
        (0, b"\xff" * 12, "field 'id'"),
        (1, b"\xff\xfe", "field 'id', from byte 0 .* is not of its type"),
    ],
)
def test_absurd_lengths_and_text_are_refused(at: int, garbage: bytes, reason: str) -> None:
    body = encode_body(make_event(0))
    with pytest.raises(WireFormatError, match=reason):
        decode_body(body[:at] + garbage + body[at + len(garbage) :])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "019B76DA"}, "id"),
        ({"action": "Context.Create"}, "action"),
        ({"version": 0}, "version"),
        ({"occurred_at": -(2**63)}, "occurred_at"),
        ({"payload": "not JSON"}, "payload"),
        ({"payload": '{"a":"\\u0000"}'}, "payload"),
        ({"actor": {"id": "", "type": "user"}}, "actor.id"),
        ({"scope": {"id": "1", "type": ""}}, "scope.type"),
        ({"target": {"id": "1", "type": "t", "attributes": {"name": "x"}}}, "target.name"),
        ({"request": {"id": "\0"}}, "request.id"),
        ({"metadata": {"a": "\0"}}, "metadata.a"),
    ],
)
def test_an_avro_record_that_is_no_event_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    record = {**plain(make_event(0)), **changes}
    body = avro_bytes(SCHEMA, record)
    with pytest.raises(WireFormatError, match=rf"Avro record, but not a valid event: .*{field}: ") as caught:
        decode_body(body)
    assert isinstance(caught.value.__cause__, InvalidEventError)
    assert decode_record(body)["action"] == record["action"]


def test_a_payload_of_another_writer_is_compacted() -> None:
    body = avro_bytes(SCHEMA, {**plain(make_event(0)), "payload": ' { "a" : 1.10 } '})
    assert decode_body(body).payload == '{"a":1.10}'


def test_a_later_schema_may_add_fields() -> None:
    later = copy.deepcopy(SCHEMA)
    later["fields"].append({"name": "colour", "type": "string"})
    later["fields"].insert(4, {"name": "tags", "type": {"type": "array", "items": "string"}})
    event = make_event(0)
    body = avro_bytes(later, {**plain(event), "colour": "red", "tags": ["a", "b"]})
    assert decode_body(body, json.dumps(later)) == event
    assert decode_body(body, later) == event
    with pytest.raises(WireFormatError, match=r"field 'payload', from byte \d+ of a body of \d+ bytes, ends too early"):
        decode_body(body[:-90], later)


def test_an_earlier_schema_may_lack_fields_that_have_defaults() -> None:
    earlier = copy.deepcopy(SCHEMA)
    earlier["fields"] = [field for field in SCHEMA["fields"] if field["name"] not in {"scope", "request"}]
    event = make_event(0, scope=None, request=None)
    assert decode_body(avro_bytes(earlier, plain(event)), earlier) == event


def test_a_schema_without_a_required_field_is_refused() -> None:
    other = copy.deepcopy(SCHEMA)
    other["fields"] = [field for field in SCHEMA["fields"] if field["name"] != "action"]
    with pytest.raises(WireFormatError, match="does not match the schema of an event"):
        decode_body(avro_bytes(other, plain(make_event(0))), other)


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "{",
        "5",
        '"string"',
        "[]",
        "{}",
        '{"type":"record"}',
        '{"type":"record","name":"a","fields":[{}]}',
        "[" * 5000,
        '{"type":"nope"}',
        '{"type":"record","name":"a","fields":[{"name":"b","type":"nope"}]}',
    ],
)
def test_an_unreadable_writer_schema_is_a_wire_format_error(schema: str) -> None:
    with pytest.raises(WireFormatError, match="the writer's schema"):
        decode_body(b"", schema)


@given(
    st.text()
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["type", "name", "fields", "items", "default", "values", "symbols", "size"]), inner
            )
        ),
    ).map(json.dumps)
)
def test_no_writer_schema_raises_another_error(schema: str) -> None:
    with pytest.raises(WireFormatError):
        decode_body(b"\x00", schema)


def test_the_schema_text_is_compact() -> None:
    assert json.dumps(SCHEMA, ensure_ascii=False, separators=(",", ":")) == SCHEMA_JSON
    assert SCHEMA["namespace"] + "." + SCHEMA["name"] == "auditstream.AuditEvent"


def test_the_header_holds_ids_of_32_bits_only() -> None:
    with pytest.raises(struct.error):
        encode(make_event(0), 2**32)


def test_uuids_are_written_in_lower_case() -> None:
    event = make_event(0, id=UUID("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"))
    assert encode(event, 1)[6:42] == b"ffffffff-ffff-ffff-ffff-ffffffffffff"
