import copy
import json
from typing import Any

import pytest

from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_sink.writer_schemas import incompatibility


def changed(name: str, new: Any) -> dict[str, Any]:
    """The event's schema with the type of one field replaced."""
    schema: dict[str, Any] = json.loads(SCHEMA_JSON)
    for field in schema["fields"]:
        if field["name"] == name:
            field["type"] = new
    return schema


def with_field(field: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(SCHEMA_JSON)
    schema["fields"].append(field)
    return schema


def without(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(SCHEMA_JSON)
    schema["fields"] = [field for field in schema["fields"] if field["name"] != name]
    return schema


def plain(schema: Any) -> Any:
    """The same schema without the attributes that do not change how bytes are read."""
    if isinstance(schema, list):
        return [plain(part) for part in schema]
    if isinstance(schema, dict):
        return {key: plain(part) for key, part in schema.items() if key not in {"doc", "default", "namespace"}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        json.loads(SCHEMA_JSON),
        plain(json.loads(SCHEMA_JSON)),
        with_field({"name": "region", "type": "string"}),
        without("request"),
        without("scope"),
        changed("action", {"type": "string", "avro.java.string": "String"}),
        changed("scope", "null"),
        changed("scope", "auditstream.Entity"),
    ],
)
def test_a_schema_whose_records_are_read_unchanged_is_accepted(schema: dict[str, Any]) -> None:
    assert incompatibility(schema) == ""


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("string", "not an Avro record"),
        ({"type": "record", "name": "X", "fields": []}, "lacks id"),
        (without("action"), "lacks action"),
        (changed("version", "long"), "version"),
        (changed("version", "string"), "version"),
        (changed("occurred_at", {"type": "long", "logicalType": "timestamp-millis"}), "occurred_at"),
        (changed("occurred_at", "long"), "occurred_at"),
        (changed("metadata", {"type": "map", "values": "long"}), "metadata.*"),
        (changed("payload", "bytes"), "payload"),
        (changed("scope", ["null", "string"]), "scope"),
        (changed("success", "int"), "success"),
        (with_field({"name": "_end", "type": "string"}), "_end"),
        (with_field({"name": "_offset", "type": "long"}), "_offset"),
    ],
)
def test_a_schema_whose_values_would_be_changed_is_refused(schema: Any, reason: str) -> None:
    assert reason in incompatibility(schema)


def test_a_mistyped_field_of_an_entity_is_named_with_its_path() -> None:
    schema = json.loads(SCHEMA_JSON)
    entity = next(field for field in schema["fields"] if field["name"] == "actor")["type"]
    entity["fields"] = [
        {**field, "type": "long"} if field["name"] == "id" else field for field in copy.deepcopy(entity["fields"])
    ]
    assert incompatibility(schema).startswith("actor.id is")
