"""Checks that ClickHouse reads a writer's records without changing their values.

ClickHouse converts types silently: a time in milliseconds would become one of 1970, and a version of more than 32 bits
another version. So every field of the event must have exactly the type of the event's schema. A writer may have fields
that the event does not have, and may lack fields that have a default.
"""

import json
from typing import Any

from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_sink.framing import END_FIELD, OFFSET_FIELD, PARTITION_FIELD

_OWN_FIELDS = frozenset({PARTITION_FIELD, OFFSET_FIELD, END_FIELD})
_COMPARED_KEYS = ("type", "logicalType", "values", "name")

_Types = dict[str, Any]


def incompatibility(writer: Any) -> str:
    """Why records of this schema would be read with other values; empty if they would not.

    Args:
        writer: The schema, parsed from JSON.
    """
    if not isinstance(writer, dict) or writer.get("type") != "record" or not isinstance(writer.get("fields"), list):
        return "is not an Avro record"
    reserved = _OWN_FIELDS & set(_fields_by_name(writer))
    if reserved:
        return f"has a field of a name that the sink uses: {', '.join(sorted(reserved))}"
    return _record_mismatch("", _READER, writer, _named_types(writer))


def _record_mismatch(path: str, expected: _Types, actual: _Types, types: _Types) -> str:
    fields = _fields_by_name(actual)
    for field in expected["fields"]:
        name = f"{path}{field['name']}"
        if field["name"] in fields:
            mismatch = _mismatch(name, field["type"], fields[field["name"]].get("type"), types)
        else:
            mismatch = "" if "default" in field else f"lacks {name}"
        if mismatch:
            return mismatch
    return ""


def _mismatch(name: str, expected: Any, actual: Any, types: _Types) -> str:
    expected, actual = _resolved(expected, _READER_TYPES), _resolved(actual, types)
    if isinstance(expected, list):
        return _union_mismatch(name, expected, actual if isinstance(actual, list) else [actual], types)
    kind = expected.get("type") if isinstance(expected, dict) else None
    if kind in {"record", "map"} and isinstance(actual, dict) and actual.get("type") == kind:
        if kind == "record":
            return _record_mismatch(f"{name}.", expected, actual, types)
        return _mismatch(f"{name}.*", expected["values"], actual.get("values"), types)
    if _compared(expected) == _compared(actual):
        return ""
    return f"{name} is {json.dumps(_compared(actual))}, not {json.dumps(_compared(expected))}"


def _union_mismatch(name: str, expected: list[Any], actual: list[Any], types: _Types) -> str:
    """Every branch of the writer must be one of the event's."""
    for branch in actual:
        mismatches = [_mismatch(name, option, branch, types) for option in expected]
        if all(mismatches):
            return mismatches[-1]
    return ""


def _resolved(schema: Any, types: _Types) -> Any:
    """A type with its name looked up, and ``{"type": "string"}`` as ``"string"``."""
    if isinstance(schema, str):
        return types.get(schema.rpartition(".")[2], schema)
    if isinstance(schema, dict) and set(schema) & {"logicalType", "fields", "values", "items", "symbols", "size"}:
        return schema
    return schema.get("type") if isinstance(schema, dict) else schema


def _compared(schema: Any) -> Any:
    return {key: schema[key] for key in _COMPARED_KEYS if key in schema} if isinstance(schema, dict) else schema


def _fields_by_name(record: _Types) -> _Types:
    return {field["name"]: field for field in record.get("fields", []) if isinstance(field, dict) and "name" in field}


def _named_types(schema: Any) -> _Types:
    """Every record within a schema by its name, without its namespace."""
    if isinstance(schema, list):
        return {name: record for part in schema for name, record in _named_types(part).items()}
    if not isinstance(schema, dict):
        return {}
    records = {}
    if schema.get("type") == "record" and isinstance(schema.get("name"), str):
        records[schema["name"].rpartition(".")[2]] = schema
    for part in (schema.get("type"), schema.get("values"), *schema.get("fields", [])):
        if not isinstance(part, str):
            records |= _named_types(part)
    return records


_READER: _Types = json.loads(SCHEMA_JSON)
_READER_TYPES = _named_types(_READER)
