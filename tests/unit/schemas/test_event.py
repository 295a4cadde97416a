import copy
import dataclasses
import enum
import json
import pickle
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given

from auditstream_schemas.codec import encode_body
from auditstream_schemas.errors import FieldError, InvalidEventError
from auditstream_schemas.event import FIELDS, MAX_BODY_BYTES, AuditEvent, Entity, Request
from auditstream_schemas.json_text import MAX_DEPTH
from auditstream_schemas.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP
from tests.support.events import events, make_event


def faults(**overrides: Any) -> tuple[FieldError, ...]:
    with pytest.raises(InvalidEventError) as caught:
        make_event(0, **overrides)
    return caught.value.errors


def only_fault(**overrides: Any) -> FieldError:
    (fault,) = faults(**overrides)
    return fault


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "action",
    ["context.create", "user.logged_in", "a.b", "checkout-key.delete-all", "oauth2.token.create", "a1.b2.c_3-d"],
)
def test_accepts_well_formed_actions(action: str) -> None:
    assert make_event(0, action=action).action == action


@pytest.mark.parametrize(
    "action",
    [
        "",
        "context",
        "context.",
        ".create",
        "context..create",
        "Context.create",
        "context.Create",
        "context create",
        "context.create ",
        "context.create\n",
        "contexté.create",
        "context.créate",
        "context._create",
        "context.create-",
        "-context.create",
        "1context.create",
        "context.2fa",
        "context.create\0",
        "context/create",
        "ⅷ.create",
        "context.create٣",
    ],
)
def test_refuses_malformed_actions(action: str) -> None:
    assert only_fault(action=action).field == "action"


@pytest.mark.parametrize(
    "text",
    [
        "019b76da-a800-7000-8000-0123456789ab",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "6FA459EA-EE8A-3CA4-094E-DB77E160355E",
        "12345678-1234-9234-f234-123456789abc",
    ],
)
def test_accepts_uuids_of_any_variant_and_writes_them_in_lower_case(text: str) -> None:
    event = make_event(0, id=text)
    assert event.id == UUID(text)
    assert json.loads(event.to_json())["id"] == text.lower()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "019b76daa80070008000012345678 9ab",
        "019b76daa800700080000123456789ab",
        "{019b76da-a800-7000-8000-0123456789ab}",
        "urn:uuid:019b76da-a800-7000-8000-0123456789ab",
        "019b76da-a800-7000-8000-0123456789ab\n",
        "019b76da-a800-7000-8000-0123456789ag",
        7,
        None,
        b"019b76da-a800-7000-8000-0123456789ab",
    ],
)
def test_refuses_other_ids(value: object) -> None:
    fault = only_fault(id=value)
    assert fault.field == "id"
    assert "a UUID such as" in fault.expected


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [
        (1_763_900_000_123_456_789, 1_763_900_000_123_456_789),
        (MIN_TIMESTAMP, MIN_TIMESTAMP),
        (MAX_TIMESTAMP, MAX_TIMESTAMP),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        (datetime(1970, 1, 1, 1, 0, 0, 1, tzinfo=timezone(timedelta(hours=1))), 1000),
    ],
)
def test_accepts_times_as_nanoseconds_text_and_datetimes(value: object, nanoseconds: int) -> None:
    assert make_event(0, occurred_at=value).occurred_at == nanoseconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MIN_TIMESTAMP - 1, "from 1900-01-01"),
        (MAX_TIMESTAMP + 1, "to 2262-04-11"),
        pytest.param(10**5000, "to 2262-04-11", id="huge"),
        (1.5, "nanoseconds since 1970 as an integer"),
        (True, "nanoseconds since 1970 as an integer"),
        (None, "nanoseconds since 1970 as an integer"),
        ("2025-01-01T00:00:00", "a zone at the end"),
        (datetime(2025, 1, 1), "datetime.now(timezone.utc)"),  # noqa: DTZ001 (the tested case)
    ],
)
def test_refuses_times_without_zone_and_out_of_range(value: object, expected: str) -> None:
    fault = only_fault(occurred_at=value)
    assert fault.field == "occurred_at"
    assert expected in fault.expected


@pytest.mark.parametrize("value", [1, 65_535])
def test_accepts_versions_of_16_bits(value: int) -> None:
    assert make_event(0, version=value).version == value


@pytest.mark.parametrize("value", [0, -1, 65_536, True, 1.0, "1", None, pytest.param(10**5000, id="huge")])
def test_refuses_other_versions(value: object) -> None:
    assert only_fault(version=value).field == "version"


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_success_is_not_converted_from_other_types(value: object) -> None:
    assert only_fault(success=value).field == "success"


@pytest.mark.parametrize("field", ["actor", "target", "scope"])
@pytest.mark.parametrize(
    ("value", "at"),
    [
        ({"type": "user"}, "id"),
        ({"id": "1"}, "type"),
        ({"id": "", "type": "user"}, "id"),
        ({"id": "1", "type": ""}, "type"),
        ({"id": 1, "type": "user"}, "id"),
        ({"id": "1", "type": "user", "name": 5}, "name"),
        ({"id": "1", "type": "user", "ip": 5}, "ip"),
        ({"id": "1", "type": "user", "ip": None}, "ip"),
        ({"id": "1", "type": "user", "attributes": {"ip": "::1"}}, "attributes"),
        ({"id": "1", "type": "user", 5: "x"}, "5"),
        ({"id": "a\0b", "type": "user"}, "id"),
        ({"id": "a", "type": "\ud800"}, "type"),
        ({"id": "a", "type": "user", "name": "\udfff"}, "name"),
        ({"id": "a", "type": "user", "\0": "x"}, r"'\x00'"),
    ],
)
def test_names_the_part_of_an_entity_at_fault(field: str, value: object, at: str) -> None:
    assert only_fault(**{field: value}).field == f"{field}.{at}"


@pytest.mark.parametrize("field", ["actor", "target", "scope", "request"])
@pytest.mark.parametrize("value", ["user-1", 5, ["user"], True])
def test_an_entity_is_an_object(field: str, value: object) -> None:
    assert only_fault(**{field: value}).field == field


@pytest.mark.parametrize("field", ["actor", "target"])
def test_actor_and_target_are_never_absent(field: str) -> None:
    assert only_fault(**{field: None}).was == "null"


def test_scope_request_and_name_may_be_absent() -> None:
    event = make_event(0, scope=None, request=None, actor={"id": "1", "type": "user", "name": None})
    assert (event.scope, event.request, event.actor.name) == (None, None, None)
    assert not {"scope", "request"} & json.loads(event.to_json()).keys()


@pytest.mark.parametrize(("value", "at"), [({}, "id"), ({"id": ""}, "id"), ({"id": "1", "ip": 5}, "ip")])
def test_names_the_part_of_a_request_at_fault(value: object, at: str) -> None:
    assert only_fault(request=value).field == f"request.{at}"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"a": 1}, "metadata.a"),
        ({"a": None}, "metadata.a"),
        ({"a": {"b": "c"}}, "metadata.a"),
        ({1: "a"}, "metadata.1"),
        ({"a": "\0"}, "metadata.a"),
        ({"a": "x\udc00"}, "metadata.a"),
        ({"\ud83d": "x"}, r"metadata.'\ud83d'"),
        ([("a", "b")], "metadata"),
        ("a=b", "metadata"),
    ],
)
def test_metadata_values_are_strings(value: object, field: str) -> None:
    assert only_fault(metadata=value).field == field


def test_values_that_may_be_secret_are_not_shown() -> None:
    errors = faults(
        metadata={"token": 82_913_447},
        actor={"id": "1", "type": "user", "key": 82_913_447},
        payload={"a": Decimal(82_913_447)},
    )
    assert len(errors) == 3
    assert "82913447" not in str(errors)


def test_one_error_names_every_field_at_fault_in_the_order_of_the_fields() -> None:
    errors = faults(
        request={"id": 1},
        success=None,
        scope={"id": "", "type": ""},
        version=0,
        id="x",
        metadata={"a": 1, "b": 2},
        occurred_at="now",
        payload={"when": datetime.now(UTC)},
        target=None,
        actor={},
        action="X",
    )
    assert [fault.field for fault in errors] == [
        "action",
        "actor.id",
        "actor.type",
        "target",
        "payload.when",
        "occurred_at",
        "metadata.a",
        "metadata.b",
        "id",
        "version",
        "scope.id",
        "scope.type",
        "success",
        "request.id",
    ]
    assert all(fault.was and fault.expected for fault in errors)


def test_the_message_shows_the_value_and_the_rule() -> None:
    with pytest.raises(InvalidEventError) as caught:
        make_event(0, action="Context.Create", version=0)
    assert str(caught.value) == (
        "invalid event: action: was 'Context.Create', expected two or more lowercase ASCII words with dots "
        "between, such as context.create or user.logged_in; a word starts with a letter and may have digits, "
        "_ and - inside; version: was 0, expected an integer from 1 to 65535"
    )


@pytest.mark.parametrize("value", ["x" * 1000, "\n" * 1000, "\U0001f600" * 1000])
def test_a_refused_value_is_shortened(value: str) -> None:
    assert len(only_fault(action=value).was) <= 80


def test_constructors_check_as_build_does() -> None:
    with pytest.raises(InvalidEventError) as caught:
        dataclasses.replace(make_event(0), action="X", payload="[]")
    assert [fault.field for fault in caught.value.errors] == ["action", "payload"]
    with pytest.raises(InvalidEventError) as caught:
        Entity(id="", type="user", attributes={"name": "x", "id": "y"})
    assert [fault.field for fault in caught.value.errors] == ["id", "id", "name"]
    with pytest.raises(InvalidEventError) as caught:
        Request(id="1", attributes={"id": "2"})
    assert [fault.field for fault in caught.value.errors] == ["id"]
    with pytest.raises(InvalidEventError) as caught:
        Request(id="1", attributes="ip")  # type: ignore[arg-type]
    assert [fault.field for fault in caught.value.errors] == ["attributes"]


def test_payload_values_are_written_exactly() -> None:
    class Level(enum.IntEnum):
        HIGH = 3

    payload = {
        "z": 2**63 + 1,
        "big": -(10**40),
        "f": 0.1 + 0.2,
        "tiny": 5e-324,
        "whole": 1.0,
        "t": True,
        "n": None,
        "list": [1, (2, 3), MappingProxyType({"a": OrderedDict(b="c")})],
        "level": Level.HIGH,
        'é\n"\\/\x7f\u2028': "日本\U0001f680\r\n",
    }
    assert make_event(0, payload=payload).payload == (
        '{"z":9223372036854775809,"big":-10000000000000000000000000000000000000000,'
        '"f":0.30000000000000004,"tiny":5e-324,"whole":1.0,"t":true,"n":null,'
        '"list":[1,[2,3],{"a":{"b":"c"}}],"level":3,'
        '"é\\n\\"\\\\/\x7f\u2028":"日本\U0001f680\\r\\n"}'
    )


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"a": [{"b": datetime.now(UTC)}]}, "payload.a[0].b"),
        ({"a": Decimal("1.1")}, "payload.a"),
        ({"a": b"x"}, "payload.a"),
        ({"a": {1, 2}}, "payload.a"),
        ({"a": UUID(int=0)}, "payload.a"),
        ({"a": float("nan")}, "payload.a"),
        ({"a": [0, float("-inf")]}, "payload.a[1]"),
        ({"a": {5: "x"}}, "payload.a.5"),
        ({None: "x"}, "payload.null"),
        ({"a": "\0"}, "payload.a"),
        ({"a": ["x", "\ud800"]}, "payload.a[1]"),
        ({"a": {"\udfff": 1}}, r"payload.a.'\udfff'"),
        ({"": object()}, "payload.''"),
        ({"a": 10**5000}, "payload.a"),
        ([1], "payload"),
        (5, "payload"),
        (nested(MAX_DEPTH + 1), "payload"),
    ],
)
def test_payload_values_that_json_lacks_are_refused_by_their_path(payload: object, field: str) -> None:
    assert only_fault(payload=payload).field == field


def test_a_payload_that_contains_itself_is_refused() -> None:
    payload: dict[str, Any] = {}
    payload["self"] = [payload]
    assert only_fault(payload=payload).expected == f"at most {MAX_DEPTH} levels of lists and mappings"


def test_accepts_a_payload_of_the_maximum_depth() -> None:
    assert make_event(0, payload=nested(MAX_DEPTH)).payload.count("{") == MAX_DEPTH


def test_an_absent_payload_is_an_empty_object() -> None:
    assert make_event(0, payload=None, metadata=None).to_json().count("{}") == 2


def event_of_size(size: int, character: str) -> AuditEvent:
    rest = len(encode_body(make_event(0, payload={"a": ""}, target={"id": "1", "type": "t" * 5000})))
    width = len(character.encode())
    fill = size - rest - 2  # A length of this many bytes takes two more than that of an empty payload.
    return make_event(
        0,
        payload={"a": character * (fill // width)},
        target={"id": "1", "type": "t" * (5000 + fill % width)},
    )


@pytest.mark.parametrize("character", ["x", "é", "日", "\U0001f680"])
def test_accepts_events_up_to_the_size_limit_only(character: str) -> None:
    assert len(encode_body(event_of_size(MAX_BODY_BYTES, character))) == MAX_BODY_BYTES
    with pytest.raises(InvalidEventError) as caught:
        event_of_size(MAX_BODY_BYTES + 1, character)
    (fault,) = caught.value.errors
    assert fault.field == "event"
    assert fault.was == f"{MAX_BODY_BYTES + 1} bytes as Avro"


LONG = "x" * MAX_BODY_BYTES


@pytest.mark.parametrize(
    "part",
    [
        {"metadata": {LONG: ""}},
        {"metadata": {"a": LONG}},
        {"payload": {"a": LONG}},
        {"actor": {"id": LONG, "type": "u"}},
        {"actor": {"id": "1", "type": LONG}},
        {"actor": {"id": "1", "type": "u", "name": LONG}},
        {"target": {"id": "1", "type": "u", "a": LONG}},
        {"target": {"id": "1", "type": "u", LONG: "a"}},
        {"scope": {"id": LONG, "type": "o"}},
        {"request": {"id": LONG}},
        {"request": {"id": "1", "a": LONG}},
        {"request": {"id": "1", LONG: ""}},
    ],
    ids=lambda part: str(part).replace(LONG, "LONG"),
)
def test_the_limit_counts_every_part(part: dict[str, Any]) -> None:
    assert only_fault(**part).field == "event"


def test_attributes_and_metadata_are_sorted_so_that_equal_events_have_equal_bytes() -> None:
    one = make_event(0, metadata={"b": "1", "a": "2", "é": "3", "Z": "4", "\U0001f680": "5", "\uffff": "6"})
    two = make_event(0, metadata=dict(sorted(one.metadata.items(), reverse=True)))
    assert list(one.metadata) == ["Z", "a", "b", "é", "\uffff", "\U0001f680"]
    assert one == two
    assert encode_body(one) == encode_body(two)
    assert one.to_json() == two.to_json()


def test_strings_of_enumerations_become_plain() -> None:
    class Action(str, enum.Enum):  # noqa: UP042 (a StrEnum's str() would hide the trap)
        CREATE = "context.create"

    event = make_event(0, action=Action.CREATE, metadata={Action.CREATE: Action.CREATE})
    assert type(event.action) is str
    assert event.metadata == {"context.create": "context.create"}
    assert [type(text) for item in event.metadata.items() for text in item] == [str, str]


def test_an_event_and_its_parts_are_immutable() -> None:
    event = make_event(0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.action = "a.b"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.actor.id = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        event.metadata["a"] = "b"  # type: ignore[index]
    with pytest.raises(TypeError):
        event.actor.attributes["a"] = "b"  # type: ignore[index]
    metadata = {"a": "1"}
    held = make_event(0, metadata=metadata)
    metadata["a"] = "2"
    assert held.metadata == {"a": "1"}


@given(events())
def test_compares_hashes_copies_and_pickles_by_content(event: AuditEvent) -> None:
    for twin in (
        pickle.loads(pickle.dumps(event)),  # noqa: S301 (our own bytes)
        copy.deepcopy(event),
        dataclasses.replace(event),
    ):
        assert twin == event
        assert hash(twin) == hash(event)
        assert encode_body(twin) == encode_body(event)
    assert dataclasses.asdict(event)["metadata"] == event.metadata
    assert event != dataclasses.replace(event, success=not event.success)


def test_fields_are_those_of_the_class() -> None:
    assert tuple(field.name for field in dataclasses.fields(AuditEvent)) == FIELDS
