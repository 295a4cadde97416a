"""Whether records of a writer's schema are read as what they are.

ClickHouse converts between types where it can, without a word: a time in milliseconds would become one of 1970,
a version beyond 32 bits another version. So every field that an event knows has the very type of the event's
schema. Fields that an event does not know may be there, and fields with a default may be absent.
"""

import json
from typing import Any

from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_sink.framing import END_FIELD, OFFSET_FIELD, PARTITION_FIELD

_OWN_FIELDS = frozenset({PARTITION_FIELD, OFFSET_FIELD, END_FIELD})
_SHOWN = ("type", "logicalType", "values", "name")

_Types = dict[str, Any]


def incompatibility(writer: Any) -> str:
    """Why records of this schema would be read as something else; empty if they would not.

    Args:
        writer: The schema, parsed from JSON.
    """
    if not isinstance(writer, dict) or writer.get("type") != "record" or not isinstance(writer.get("fields"), list):
        return "is not an Avro record"
    taken = _OWN_FIELDS & set(_by_name(writer))
    if taken:
        return f"has a field of a name that the sink uses: {', '.join(sorted(taken))}"
    return _record_mismatch("", _READER, writer, _named_types(writer))


def _record_mismatch(path: str, wanted: _Types, found: _Types, types: _Types) -> str:
    fields = _by_name(found)
    for field in wanted["fields"]:
        name = f"{path}{field['name']}"
        if field["name"] in fields:
            wrong = _mismatch(name, field["type"], fields[field["name"]].get("type"), types)
        else:
            wrong = "" if "default" in field else f"lacks {name}"
        if wrong:
            return wrong
    return ""


def _mismatch(name: str, wanted: Any, found: Any, types: _Types) -> str:
    wanted, found = _resolved(wanted, _READER_TYPES), _resolved(found, types)
    if isinstance(wanted, list):
        return _union_mismatch(name, wanted, found if isinstance(found, list) else [found], types)
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind in {"record", "map"} and isinstance(found, dict) and found.get("type") == kind:
        if kind == "record":
            return _record_mismatch(f"{name}.", wanted, found, types)
        return _mismatch(f"{name}.*", wanted["values"], found.get("values"), types)
    if _shown(wanted) == _shown(found):
        return ""
    return f"{name} is {json.dumps(_shown(found))}, not {json.dumps(_shown(wanted))}"


def _union_mismatch(name: str, wanted: list[Any], found: list[Any], types: _Types) -> str:
    """Each branch that the writer may use is one that an event knows."""
    for branch in found:
        tried = [_mismatch(name, option, branch, types) for option in wanted]
        if all(tried):
            return tried[-1]
    return ""


def _resolved(schema: Any, types: _Types) -> Any:
    """A type with its name looked up, and ``{"type": "string"}`` as ``"string"``."""
    if isinstance(schema, str):
        return types.get(schema.rpartition(".")[2], schema)
    if isinstance(schema, dict) and set(schema) & {"logicalType", "fields", "values", "items", "symbols", "size"}:
        return schema
    return schema.get("type") if isinstance(schema, dict) else schema


def _shown(schema: Any) -> Any:
    return {key: schema[key] for key in _SHOWN if key in schema} if isinstance(schema, dict) else schema


def _by_name(record: _Types) -> _Types:
    return {field["name"]: field for field in record.get("fields", []) if isinstance(field, dict) and "name" in field}


def _named_types(schema: Any) -> _Types:
    """Every record within a schema by its name, without its namespace."""
    if isinstance(schema, list):
        return {name: found for part in schema for name, found in _named_types(part).items()}
    if not isinstance(schema, dict):
        return {}
    found = {}
    if schema.get("type") == "record" and isinstance(schema.get("name"), str):
        found[schema["name"].rpartition(".")[2]] = schema
    for part in (schema.get("type"), schema.get("values"), *schema.get("fields", [])):
        if not isinstance(part, str):
            found |= _named_types(part)
    return found


_READER: _Types = json.loads(SCHEMA_JSON)
_READER_TYPES = _named_types(_READER)
