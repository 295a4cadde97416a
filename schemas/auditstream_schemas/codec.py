"""Events as messages in the Confluent wire format: byte 0, the schema id in four bytes, the Avro body.

Schemas are parsed without their logical types, so that times stay integers.
"""

import json
import struct
from functools import lru_cache, partial
from importlib import resources
from io import BytesIO
from typing import Any, cast

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from auditstream_schemas.entity import Entity, Request
from auditstream_schemas.errors import InvalidEventError, WireFormatError
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.validation import Faults

SCHEMA_JSON: str = json.dumps(
    json.loads(resources.files("auditstream_schemas").joinpath("audit_event.avsc").read_text("utf-8")),
    ensure_ascii=False,
    separators=(",", ":"),
)
"""The Avro schema of an event (audit_event.avsc) as compact JSON, which is the text to register."""

_MAGIC = b"\x00"
_HEADER = struct.Struct(">cI")

BODY_ERRORS = (EOFError, ValueError, IndexError, OverflowError, MemoryError, fastavro.read.SchemaResolutionError)
"""Errors of fastavro for bytes that do not match the schema."""

_SCHEMA_ERRORS = (ValueError, KeyError, TypeError, AttributeError, RecursionError, SchemaParseException, UnknownType)


def encode_body(event: AuditEvent) -> bytes:
    """Encode an event as an Avro body, without the header of the wire format."""
    return b"".join(event.avro_pieces())


def encode(event: AuditEvent, schema_id: int) -> bytes:
    """Encode an event as a message; ``schema_id`` is the id of `SCHEMA_JSON` in the schema registry."""
    return join(schema_id, encode_body(event))


def split(message: bytes) -> tuple[int, bytes]:
    """Split a message into its schema id and its body.

    Raises:
        WireFormatError: The message does not start with the header of the wire format.
    """
    if len(message) < _HEADER.size:
        raise WireFormatError(
            f"the message has {len(message)} bytes, fewer than the {_HEADER.size} of the wire format's header"
        )
    magic, schema_id = _HEADER.unpack_from(message)
    if magic != _MAGIC:
        raise WireFormatError(
            f"the message starts with byte 0x{magic.hex()} instead of 0x00: "
            "its producer does not use the Confluent wire format"
        )
    return schema_id, message[_HEADER.size :]


def join(schema_id: int, body: bytes) -> bytes:
    """Make a message of a schema id and a body."""
    return _HEADER.pack(_MAGIC, schema_id) + body


def decode(message: bytes, writer_schema: str | dict[str, Any] | None = None) -> AuditEvent:
    """Decode a message; see `decode_body`."""
    return decode_body(split(message)[1], writer_schema)


def decode_body(body: bytes, writer_schema: str | dict[str, Any] | None = None) -> AuditEvent:
    """Decode an Avro body, which has no header of the wire format.

    It was written with ``writer_schema``: JSON text, or a parsed schema, or None for `SCHEMA_JSON`. Fields that this
    schema lacks get their defaults; fields that an event does not have are dropped.

    Raises:
        WireFormatError: The bytes are not one record of the writer's schema, or not a valid event.
    """
    record = decode_record(body, writer_schema)
    faults = Faults()
    try:
        for name, part in (("actor", Entity), ("target", Entity), ("scope", Entity), ("request", Request)):
            if record[name] is not None:
                record[name] = faults.check(name, partial(_make, part), record[name])
        faults.raise_any()
        return AuditEvent(**record)
    except InvalidEventError as error:
        raise WireFormatError(f"the body is an Avro record, but not a valid event: {error}") from error


def decode_record(body: bytes, writer_schema: str | dict[str, Any] | None = None) -> dict[str, Any]:
    """Decode an Avro body into plain values, without the checks of an event.

    Returns:
        The fields of `SCHEMA_JSON` by name: entities and maps as dicts, the id as text, the time as
        nanoseconds since 1970.

    Raises:
        WireFormatError: The bytes are not one record of the writer's schema.
    """
    reader = parsed_schema(SCHEMA_JSON)
    if isinstance(writer_schema, dict):
        writer_schema = json.dumps(writer_schema)
    writer = reader if writer_schema is None else parsed_schema(writer_schema)
    stream = BytesIO(body)
    try:
        record = fastavro.schemaless_reader(stream, writer, None if writer is reader else reader)
    except BODY_ERRORS as error:
        raise WireFormatError(_reason(body, writer, error)) from error
    if stream.tell() != len(body):
        raise WireFormatError(
            f"the record ends at byte {stream.tell()} of a body of {len(body)} bytes: "
            "it was written with another schema, or it is damaged"
        )
    return cast("dict[str, Any]", record)


@lru_cache(maxsize=256)
def parsed_schema(schema_json: str) -> dict[str, Any]:
    """Parse the schema of a record for fastavro, without its logical types.

    Raises:
        WireFormatError: The text is not an Avro schema, or its type is not record.
    """
    try:
        schema = fastavro.parse_schema(json.loads(schema_json, object_hook=_without_logical_type))
    except _SCHEMA_ERRORS as error:
        raise WireFormatError(f"the writer's schema cannot be read: {error!r}") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise WireFormatError("the writer's schema is not that of a record")
    return schema


def _without_logical_type(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "logicalType"}


def _reason(body: bytes, writer: dict[str, Any], error: Exception) -> str:
    """Name the first field that cannot be decoded: decode one field, then two, until fastavro fails."""
    end = 0
    for count, field in enumerate(writer["fields"], start=1):
        stream = BytesIO(body)
        try:
            fastavro.schemaless_reader(stream, {**writer, "fields": writer["fields"][:count]}, None)
        except BODY_ERRORS as field_error:
            fault = "ends too early" if stream.tell() == len(body) else f"is not of its type ({field_error})"
            return f"field {field['name']!r}, from byte {end} of a body of {len(body)} bytes, {fault}"
        end = stream.tell()
    return f"the body does not match the schema of an event: {error}"


def _make(part: type[Entity] | type[Request], fields: dict[str, Any]) -> Entity | Request:
    return part(**fields)
