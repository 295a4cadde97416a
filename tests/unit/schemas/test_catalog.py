import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from auditstream_schemas.catalog import CatalogEntry, catalog, validate_payload
from auditstream_schemas.codec import decode, encode
from auditstream_schemas.errors import CatalogError
from auditstream_schemas.event import FIELDS, AuditEvent
from auditstream_schemas.json_text import MAX_DEPTH
from tests.support.events import make_event

ACTIONS = [
    "audit_log.access.deny",
    "audit_log.api.query",
    "audit_log.export.cancel",
    "audit_log.export.deny",
    "audit_log.export.download",
    "audit_log.export.finish",
    "audit_log.export.request",
    "audit_log.page.view",
    "audit_log.session.create",
    "audit_log.token.create",
    "audit_log.token.revoke",
    "context.create",
    "context.delete",
    "context.env_var.delete",
    "project.env_var.create",
    "project.env_var.delete",
    "project.settings.update",
    "project.ssh_key.create",
    "project.ssh_key.delete",
    "project.api_token.create",
    "schedule.create",
    "schedule.update",
    "schedule.delete",
    "user.create",
    "user.logged_in",
    "user.logged_out",
    "workflow.job.approve",
    "workflow.job.finish",
    "workflow.job.scheduled",
    "workflow.job.start",
]

entries = pytest.mark.parametrize("entry", catalog().values(), ids=catalog().keys())


def example(entry: CatalogEntry) -> AuditEvent:
    return AuditEvent.from_json(json.dumps(entry.example, ensure_ascii=False))


def subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from subschemas(inner)
    if isinstance(schema.get("items"), dict):
        yield from subschemas(schema["items"])


def refusal(event: AuditEvent, *, strict: bool = False) -> str:
    with pytest.raises(CatalogError) as caught:
        validate_payload(event, strict=strict)
    return str(caught.value)


def test_lists_the_known_actions() -> None:
    assert list(catalog()) == sorted(ACTIONS)
    assert all(action == entry.action for action, entry in catalog().items())


@entries
def test_an_entry_is_complete(entry: CatalogEntry) -> None:
    assert entry.description.endswith(".")
    assert list(entry.payload_schemas) == [1]
    assert list(entry.example) == [field for field in FIELDS if field in entry.example]


@entries
def test_payload_schemas_are_valid_closed_and_described(entry: CatalogEntry) -> None:
    for schema in entry.payload_schemas.values():
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        jsonschema_rs.Draft202012Validator(schema)
        assert jsonschema_rs.meta.is_valid(schema)
        for inner in subschemas(schema):
            if "properties" in inner:
                assert inner["additionalProperties"] is False
                assert set(inner["required"]) <= set(inner["properties"])
                assert all("description" in member for member in inner["properties"].values())


@entries
def test_an_example_is_valid_and_survives_avro_and_json(entry: CatalogEntry) -> None:
    event = example(entry)
    assert event.action == entry.action
    assert event.target.type == entry.target_type
    validate_payload(event, strict=True)
    assert decode(encode(event, 1)) == event
    assert AuditEvent.from_json(event.to_json()) == event
    written = json.loads(event.to_json())
    assert {**written, "occurred_at": None} == {**entry.example, "occurred_at": None}


@entries
def test_a_payload_with_an_unknown_key_is_refused(entry: CatalogEntry) -> None:
    payload = json.dumps({**entry.example["payload"], "nmae": 1})
    message = refusal(dataclasses.replace(example(entry), payload=payload))
    assert f"the payload of {entry.action}, version 1, breaks its schema: payload: " in message
    assert "'nmae'" in message
    assert message.endswith("(rule additionalProperties)")


@entries
def test_a_payload_without_a_required_key_is_refused(entry: CatalogEntry) -> None:
    for key in entry.payload_schemas[1]["required"]:
        payload = json.dumps({name: value for name, value in entry.example["payload"].items() if name != key})
        assert f'"{key}" is a required property' in refusal(dataclasses.replace(example(entry), payload=payload))


def test_the_examples_cover_the_optional_fields() -> None:
    examples = [example(entry) for entry in catalog().values()]
    assert {event.success for event in examples} == {True, False}
    assert any(event.scope is None for event in examples)
    assert any(event.request is None for event in examples)
    assert any(event.actor.name is None for event in examples)
    assert any(event.occurred_at % 1000 for event in examples)
    assert any(not (event.target.name or "").isascii() for event in examples)
    assert len({event.id for event in examples}) == len(examples)


def test_each_error_has_the_path_and_the_rule_but_not_the_value() -> None:
    event = make_event(
        0,
        action="project.settings.update",
        payload={"changes": [{"name": "a", "old": 1, "new": 2}, {"name": "", "old": {"secret": 82_913_447}}]},
    )
    message = refusal(event)
    assert "payload.changes[1].name: the value is shorter than 1 character (rule properties/changes/" in message
    assert "payload.changes[1].old: the value is not of types" in message
    assert 'payload.changes[1]: "new" is a required property' in message
    assert "82913447" not in message


def test_many_errors_are_counted() -> None:
    changes = [{"name": "a", "old": 1}] * 15
    message = refusal(make_event(0, action="project.settings.update", payload={"changes": changes}))
    assert message.count('"new" is a required property') == 10
    assert message.endswith("; and 5 more")


def test_formats_are_checked() -> None:
    event = example(catalog()["workflow.job.scheduled"])
    payload = event.payload.replace("0f9c2e4a-8d3b-4c1e-9a77-5be0d1c2f3a4", "not-a-uuid")
    assert 'payload.workflow_id: the value is not a "uuid"' in refusal(dataclasses.replace(event, payload=payload))


def test_an_unlisted_action_is_accepted_unless_strict() -> None:
    event = make_event(0, action="billing.invoice.pay", payload={"anything": [1]})
    validate_payload(event)
    assert "the catalog has no action billing.invoice.pay" in refusal(event, strict=True)


def test_an_unlisted_version_is_accepted_unless_strict() -> None:
    event = make_event(0, action="context.create", version=2, payload={"anything": [1]})
    validate_payload(event)
    assert "no version 2 of context.create, only 1" in refusal(event, strict=True)


@pytest.mark.parametrize(
    ("number", "valid"),
    [
        ("0", True),
        ("-0", True),
        ("0.000000000000000000000000000000000000001", True),
        ("-0.000000000000000000000000000000000000001", False),
        ("1e-4000", True),
        ("-1e-4000", False),
        ("9" * 40, True),
        ("-" + "9" * 40, False),
        ("9" * 5000, True),
        ("-" + "9" * 5000, False),
        ("1.10", True),
    ],
)
def test_numbers_are_compared_exactly(number: str, valid: bool) -> None:
    event = example(catalog()["workflow.job.finish"])
    event = dataclasses.replace(event, payload=event.payload.replace("251.25", number))
    assert number in event.payload
    if valid:
        validate_payload(event, strict=True)
    else:
        assert "breaks its schema" in refusal(event)


@pytest.mark.parametrize(
    ("number", "valid"), [("1", True), ("9" * 40, True), ("9" * 5000, True), ("1.5", False), ("0", False)]
)
def test_integers_of_any_length_are_integers(number: str, valid: bool) -> None:
    event = example(catalog()["workflow.job.finish"])
    event = dataclasses.replace(event, payload=event.payload.replace("18123", number))
    if valid:
        validate_payload(event, strict=True)
    else:
        assert "payload.job_number" in refusal(event)


def test_the_deepest_payload_can_be_checked() -> None:
    payload = '{"name":' + '{"a":' * (MAX_DEPTH - 1) + "1" + "}" * MAX_DEPTH
    event = dataclasses.replace(make_event(0, action="context.create"), payload=payload)
    assert "payload.name: the value is not of type" in refusal(event)
