"""Writer schemas: each is fetched once from the registry, and checked.

ClickHouse converts types silently: a time in milliseconds would become one of 1970, and a version of more than 32 bits
another version. So every field of the event must have exactly the type of the event's schema. A writer may have fields
that the event does not have, and may lack fields that have a default.
"""

import json
from dataclasses import dataclass
from typing import Any

from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_schemas.errors import UnknownSchemaError
from auditstream_schemas.registry import RegistryClient
from auditstream_sink.framing import END_FIELD, OFFSET_FIELD, PARTITION_FIELD, header
from auditstream_sink.metrics import Metrics

_Types = dict[str, Any]

_OWN_FIELDS = frozenset({PARTITION_FIELD, OFFSET_FIELD, END_FIELD})
_COMPARED_KEYS = ("type", "logicalType", "values", "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSchema:
    """A schema of the registry, and the head of a container of its records."""

    schema_id: int
    text: str
    head: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableSchema:
    """A schema whose records cannot be stored; ``reason`` and ``error`` as in `RefusedRecord`."""

    reason: str
    error: str


_MAX_SCHEMA_ID = 2**31 - 1
"""The registry's ids are 32-bit integers: a larger one gets the answer of a wrong path."""

_MAX_KNOWN = 10_000
_UNUSABLE_SECONDS = 60.0


class WriterSchemas:
    """Looks writer schemas up by id; asks the registry once for each."""

    def __init__(self, registry: RegistryClient, metrics: Metrics) -> None:
        self._registry, self._metrics = registry, metrics
        self._schemas: dict[int, WriterSchema | UnusableSchema] = {}
        self._forget_at = 0.0

    def get(self, schema_id: int) -> WriterSchema | UnusableSchema:
        """The schema of an id, usable or not. Blocks on the registry for a new id.

        Raises RegistryError if the registry is away or refuses to answer; the record has to wait.
        """
        schema = self.get_known(schema_id)
        if schema is None:
            schema = self._schemas[schema_id] = self._fetch(schema_id)
        return schema

    def get_known(self, schema_id: int) -> WriterSchema | UnusableSchema | None:
        """The same for an id that was fetched already, else None; never blocks."""
        return self._schemas.get(schema_id)

    def forget_unusable(self, now: float) -> None:
        """Once a minute, forget the unusable ids: the registry may have been repaired meanwhile."""
        if now >= self._forget_at or len(self._schemas) > _MAX_KNOWN:
            self._schemas = {id: known for id, known in self._schemas.items() if isinstance(known, WriterSchema)}
            self._forget_at = now + _UNUSABLE_SECONDS

    def _fetch(self, schema_id: int) -> WriterSchema | UnusableSchema:
        if schema_id > _MAX_SCHEMA_ID:
            return UnusableSchema(reason="unknown_schema", error=f"schema id {schema_id} is larger than any id")
        with self._metrics.step("schema"):
            try:
                text = self._registry.schema(schema_id)
            except UnknownSchemaError as error:
                return UnusableSchema(reason="unknown_schema", error=f"schema id {schema_id}: {error}")
        try:
            schema: Any = json.loads(text)
        except ValueError:
            schema = None
        if error_text := incompatibility(schema):
            return UnusableSchema(reason="incompatible_schema", error=f"schema id {schema_id}: {error_text}")
        return WriterSchema(schema_id=schema_id, text=text, head=header(schema))


def incompatibility(writer: Any) -> str:
    """Why ClickHouse would change the values of a schema's records; empty if it would not."""
    if not isinstance(writer, dict) or writer.get("type") != "record" or not isinstance(writer.get("fields"), list):
        return "is not an Avro record"
    if reserved := _OWN_FIELDS & set(_fields_by_name(writer)):
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
