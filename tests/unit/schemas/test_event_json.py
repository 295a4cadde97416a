import json
import re
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstream_schemas.errors import FieldError, InvalidEventError
from auditstream_schemas.event import FIELDS, AuditEvent
from auditstream_schemas.json_text import MAX_DEPTH
from tests.support.events import events, make_event, payload_texts

SAMPLE = {
    "action": '"context.create"',
    "actor": '{"id":"u1","type":"user","name":"Zoë","ip":"192.0.2.1"}',
    "target": '{"id":"c1","type":"context"}',
    "payload": '{"n":1}',
    "occurred_at": '"2017-12-21T13:50:54.123456789Z"',
    "metadata": '{"a":"b"}',
    "id": '"019b76da-a800-7000-8000-0123456789ab"',
    "version": "1",
    "scope": '{"id":"o1","type":"organization"}',
    "success": "true",
    "request": '{"id":"r1","ip":"192.0.2.1"}',
}


def text_of(**raw: str | None) -> str:
    """The sample's JSON with members replaced by other JSON texts, or left out."""
    members = {key: value for key, value in {**SAMPLE, **raw}.items() if value is not None}
    return "{" + ",".join(f'"{key}":{value}' for key, value in members.items()) + "}"


def faults(text: str | bytes, **options: Any) -> tuple[FieldError, ...]:
    with pytest.raises(InvalidEventError) as caught:
        AuditEvent.from_json(text, **options)
    return caught.value.errors


def only_fault(text: str | bytes, **options: Any) -> FieldError:
    (fault,) = faults(text, **options)
    return fault


def payload_of(text: str) -> str:
    return AuditEvent.from_json(text_of(payload=text)).payload


def test_reads_and_writes_the_public_shape() -> None:
    event = AuditEvent.from_json(text_of())
    assert event.actor.name == "Zoë"
    assert event.actor.attributes == {"ip": "192.0.2.1"}
    assert event.occurred_at == 1_513_864_254_123_456_789
    assert event.to_json() == text_of()
    assert list(json.loads(event.to_json())) == list(FIELDS)


@given(events())
def test_json_is_read_back_exactly(event: AuditEvent) -> None:
    text = event.to_json()
    assert AuditEvent.from_json(text) == event
    assert AuditEvent.from_json(text.encode()).to_json() == text
    json.loads(text)


@given(payload_texts())
def test_a_payload_loses_white_space_between_its_tokens_and_nothing_else(text: str) -> None:
    compact = payload_of(text)
    tokens = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
    assert tokens.findall(compact) == tokens.findall(text)
    assert "".join(tokens.findall(compact)) == compact
    assert json.loads(compact, object_pairs_hook=list) == json.loads(text, object_pairs_hook=list)


@pytest.mark.parametrize(
    "payload",
    [
        "{}",
        '{"n":1.10}',
        '{"n":1E5,"m":1e+5,"o":-0,"p":-0.0,"q":1e-400,"r":1.7976931348623157e308}',
        '{"n":123456789012345678901234567890}',
        '{"n":9007199254740993}',
        '{"b":1,"a":2,"b":3}',
        '{"nested":{"x":1,"x":2}}',
        '{"text":"caf\\u00e9 \\/ \\ud83d\\ude80 \\u2028 \\\\u0000 \\\\ud800"}',
        '{"text":"a  b\u00a0\u2003 \\t \\n : , { [ \\" "}',
        '{"\\"":"\\\\","\\\\\\"":"x y"}',
        '{"日本":"\U0001f680","":""}',
        '{"a":[[],{},[{}],null,true,false,""]}',
    ],
)
def test_a_payload_keeps_its_spelling(payload: str) -> None:
    assert payload_of(payload) == payload
    event = AuditEvent.from_json(text_of(payload=payload))
    assert f'"payload":{payload},' in event.to_json()


def test_white_space_of_every_kind_goes_but_not_within_strings() -> None:
    text = '\r\n{ "a b" :\t[ 1 ,\n2.50 , " x\\" y " ] , "c" : { } }\n '
    assert payload_of(text) == '{"a b":[1,2.50," x\\" y "],"c":{}}'
    spread = " " + text_of().replace('":', '"\t: ').replace(',"', ' ,\n "').replace("{", "{ ") + "\r\n"
    assert AuditEvent.from_json(spread).to_json() == text_of()


def test_integers_longer_than_python_reads_stay_exact() -> None:
    digits = "9" * (sys.get_int_max_str_digits() + 1)
    assert payload_of(f'{{"n":{digits},"m":-{digits}}}') == f'{{"n":{digits},"m":-{digits}}}'
    assert only_fault(text_of(version=digits)).was.startswith("9999")
    assert only_fault(text_of(metadata=f'{{"a":{digits}}}')).field == "metadata.a"


@pytest.mark.parametrize(("opened", "closed"), [('{"a":', "}"), ("[", "]")])
def test_nesting_is_kept_up_to_the_limit_and_refused_beyond(opened: str, closed: str) -> None:
    def nested(depth: int) -> str:
        return '{"p":' + opened * (depth - 1) + "1" + closed * (depth - 1) + "}"

    assert payload_of(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 100_000):
        assert only_fault(text_of(payload=nested(depth))) == FieldError(
            "payload", "JSON nested deeper", f"at most {MAX_DEPTH} levels of arrays and objects"
        )
    assert only_fault(text_of(actor=nested(100_000))).field == "actor"


def test_many_brackets_are_not_deep_nesting() -> None:
    payload = '{"a":[' + ",".join(['{"b":["[[[{{{"]}'] * MAX_DEPTH) + "]}"
    assert payload_of(payload) == payload


@pytest.mark.parametrize(
    ("payload", "was"),
    [
        ('{"a":NaN}', "JSON with NaN"),
        ('{"a":[Infinity]}', "JSON with Infinity"),
        ('{"a":-Infinity}', "JSON with -Infinity"),
        ('{"a":1e400}', "JSON with a number beyond the range of a double"),
        ('{"a":-1E999}', "JSON with a number beyond the range of a double"),
        ('{"a":"\\u0000"}', "JSON with an escaped NUL"),
        ('{"a\\u0000":1}', "JSON with an escaped NUL"),
        ('{"a":"\\\\\\u0000"}', "JSON with an escaped NUL"),
        ('{"a":"\\ud800"}', "JSON with an escaped lone surrogate"),
        ('{"\\uDFFF":1}', "JSON with an escaped lone surrogate"),
        ('{"a":["\\ud83dx\\ude80"]}', "JSON with an escaped lone surrogate"),
        ('{"a":"\\ude80\\ud83d"}', "JSON with an escaped lone surrogate"),
        ('{"a":"\\ud83d\\ud83d\\ude80"}', "JSON with an escaped lone surrogate"),
        ('{"a":"\ud800"}', "JSON with a lone surrogate"),
        ('{"a":"\\ud83d\ude80"}', "JSON with a lone surrogate"),
        ("[]", "a JSON array"),
        ('"{}"', "a JSON string"),
        ("5", "a JSON number"),
        ("null", "null"),
        ("true", "true"),
        ("NaN", "JSON with NaN"),
    ],
)
def test_refuses_payloads_that_clickhouse_or_utf_8_cannot_represent(payload: str, was: str) -> None:
    errors = faults(text_of(payload=payload, version="0"))
    assert [(fault.field, fault.was) for fault in errors] == [("payload", was), ("version", "0")]


@pytest.mark.parametrize("payload", ['{"a":1}', '{"a" : 1 }'])
def test_the_constructor_checks_and_compacts_payload_text(payload: str) -> None:
    assert AuditEvent(**{**vars_of(make_event(0)), "payload": payload}).payload == '{"a":1}'


@pytest.mark.parametrize(
    "payload", ["", " ", "[]", "{", "{}x", "{} {}", "{'a':1}", '{"a":01}', '{"a":"\n"}', '{"a":1,}']
)
def test_the_constructor_refuses_other_payload_text(payload: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        AuditEvent(**{**vars_of(make_event(0)), "payload": payload})
    assert [fault.field for fault in caught.value.errors] == ["payload"]


def vars_of(event: AuditEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in FIELDS}


@pytest.mark.parametrize(
    ("text", "was"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("[]", "a JSON array"),
        ('"x"', "a JSON string"),
        ("null", "null"),
        ("12", "a JSON number"),
        ("-", "a JSON number"),
        ("action: x", "text that starts with 'a'"),
        ("{", "invalid JSON: the end at character 2"),
        ("{]", "invalid JSON: ']' at character 2"),
        ('{"action"', "invalid JSON: the end at character 10"),
        ('{"action":', "invalid JSON: Expecting value at character 11"),
        ('{"action":x', "invalid JSON: Expecting value at character 11"),
        ('{"action":"x', "invalid JSON: Unterminated string starting at at character 11"),
        ('{"action":"x"', "invalid JSON: the end at character 14"),
        ('{"action":"x",', "invalid JSON: the end at character 15"),
        ('{"action":"x",}', "invalid JSON: '}' at character 15"),
        ('{"action" "x"}', "invalid JSON: '\"' at character 11"),
        ('{"action":"x"} {}', "invalid JSON: '{' at character 16"),
        ("{action:1}", "invalid JSON: 'a' at character 2"),
        ('{"a\nb":1}', "invalid JSON: Invalid control character at at character 4"),
        ('{"payload":{"a":}}', "invalid JSON: Expecting value at character 17"),
        ('{"payload":{"a":1}', "invalid JSON: the end at character 19"),
        ('{"payload":{"a":"\\x"}}', "invalid JSON: Invalid \\escape at character 18"),
        ('\ufeff{"a":1}', "text that starts with '\\ufeff'"),
        (b'{"action":"\xff"}', "byte 0xff at offset 11"),
        (b"\xed\xa0\x80", "byte 0xed at offset 0"),
    ],
)
def test_names_the_position_where_text_is_not_json(text: str | bytes, was: str) -> None:
    fault = only_fault(text)
    assert (fault.field, fault.was) == ("event", was)


@given(st.text() | st.binary() | st.text('{}[]",:\\u0d8 \n19eE.-+ntf"actionpayload'))
def test_no_text_raises_another_error(text: str | bytes) -> None:
    with pytest.raises(InvalidEventError):
        AuditEvent.from_json(text)


@given(st.integers(0, 400), st.integers(1, 3), st.characters())
def test_no_damage_raises_another_error(at: int, length: int, character: str) -> None:
    text = text_of()
    damaged = text[:at] + character + text[at + length :]
    try:
        event = AuditEvent.from_json(damaged)
    except InvalidEventError:
        return
    assert AuditEvent.from_json(event.to_json()) == event


@pytest.mark.parametrize("key", ["action", "actor", "target", "occurred_at", "id"])
def test_names_a_missing_field(key: str) -> None:
    fault = only_fault(text_of(**{key: None}))
    assert (fault.field, fault.was) == (key, "missing")


def test_names_all_missing_fields() -> None:
    assert [fault.field for fault in faults("{}")] == ["action", "actor", "target", "occurred_at", "id"]


def test_optional_fields_have_defaults() -> None:
    event = AuditEvent.from_json(
        text_of(payload=None, metadata=None, version=None, scope=None, success=None, request=None)
    )
    assert (event.payload, event.metadata, event.version) == ("{}", {}, 1)
    assert (event.scope, event.success, event.request) == (None, True, None)


def test_null_is_absent_for_scope_request_and_name_alone() -> None:
    event = AuditEvent.from_json(text_of(scope="null", request="null", actor='{"id":"1","type":"user","name":null}'))
    assert (event.scope, event.request, event.actor.name) == (None, None, None)
    nulls = {key: "null" for key in FIELDS if key not in {"scope", "request"}}
    assert [fault.field for fault in faults(text_of(**nulls))] == list(nulls)


def test_defaults_fill_missing_keys_and_no_others() -> None:
    defaults = {
        "id": UUID(int=1),
        "occurred_at": datetime(2025, 1, 1, tzinfo=UTC),
        "version": 7,
        "payload": {"a": 1},
        "scope": {"id": "o2", "type": "organization"},
    }
    bare = AuditEvent.from_json(
        text_of(id=None, occurred_at=None, version=None, payload=None, scope=None), defaults=defaults
    )
    assert (bare.id, bare.version, bare.payload) == (UUID(int=1), 7, '{"a":1}')
    assert bare.occurred_at == 1_735_689_600 * 10**9
    assert bare.scope is not None
    assert AuditEvent.from_json(text_of(), defaults=defaults).to_json() == text_of()
    assert only_fault(text_of(id="null"), defaults=defaults).field == "id"
    assert only_fault(text_of(), defaults={"colour": "red"}).field == "colour"


@pytest.mark.parametrize(
    ("key", "field"), [("colour", "colour"), ("", "''"), ("Action", "Action"), ("a\\u0000", r"'a\x00'")]
)
def test_refuses_unknown_keys_by_name(key: str, field: str) -> None:
    errors = faults(text_of(version="0", **{key: "1"}))
    assert [fault.field for fault in errors] == ["version", field]
    assert "one of action, actor," in errors[1].expected


@pytest.mark.parametrize("key", ["action", "payload", "id", "scope"])
@pytest.mark.parametrize("spelled", [False, True])
def test_refuses_a_repeated_key(key: str, spelled: bool) -> None:
    again = f"\\u{ord(key[0]):04x}{key[1:]}" if spelled else key
    text = text_of()[:-1] + f',"{again}":{SAMPLE[key]}}}'
    assert only_fault(text) == FieldError(key, "given twice", "each key once")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("metadata", '{"a":"1","a":"1"}'),
        ("actor", '{"id":"1","id":"2","type":"user"}'),
        ("request", '{"id":"1","\\u0069d":"2"}'),
        ("metadata", f'{{"{"x" * 99}":"1","{"x" * 99}":"2"}}'),
    ],
)
def test_refuses_a_repeated_key_inside_an_object(key: str, text: str) -> None:
    fault = only_fault(text_of(**{key: text}))
    assert fault.field == key
    assert "twice" in fault.was
    assert len(fault.was) <= 80


@pytest.mark.parametrize(
    ("key", "text", "was"),
    [
        ("version", "1.0", "1.0"),
        ("version", "1e0", "1e0"),
        ("version", '"1"', "'1'"),
        ("version", "NaN", "NaN"),
        ("version", "true", "true"),
        ("version", "99999999999999999999", "99999999999999999999"),
        ("occurred_at", "1513864254474", "a number"),
        ("occurred_at", "1.5", "a number"),
        ("occurred_at", '"2017-12-21T13:50:54"', "'2017-12-21T13:50:54'"),
        ("success", "1", "1"),
        ("success", '"true"', "'true'"),
        ("id", '"x"', "'x'"),
        ("action", '"A.B"', "'A.B'"),
        ("action", '"a.b\\u0000"', "a string with a NUL character"),
        ("actor", '[{"id":"1"}]', "an array"),
        ("metadata", "[]", "an array"),
    ],
)
def test_shows_the_refused_value(key: str, text: str, was: str) -> None:
    fault = only_fault(text_of(**{key: text}))
    assert (fault.field, fault.was) == (key, was)


@pytest.mark.parametrize("key", ["metadata", "actor", "request"])
@pytest.mark.parametrize("value", ["1", "1.5", "NaN", "null", "true", "[]", "{}", '"\\ud800"', '"\\u0000"'])
def test_free_strings_are_strings(key: str, value: str) -> None:
    text = SAMPLE[key][:-1] + f',"extra":{value}}}'
    assert only_fault(text_of(**{key: text})).field == f"{key}.extra"


def test_a_surrogate_pair_in_escapes_is_one_character() -> None:
    event = AuditEvent.from_json(text_of(metadata='{"a":"\\ud83d\\ude80"}'))
    assert event.metadata == {"a": "\U0001f680"}
    assert '"a":"\U0001f680"' in event.to_json()
