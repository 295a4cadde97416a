"""Events as messages in the Confluent wire format: byte 0, the schema's id in four bytes, the Avro body.

Times stay integers: the schemas are read without their logical types, so nothing becomes a datetime.
"""

import json
import struct
from functools import lru_cache
from importlib import resources
from io import BytesIO
from typing import Any, cast

import fastavro

from auditstream_schemas import avro_body
from auditstream_schemas.errors import InvalidEventError, WireFormatError
from auditstream_schemas.event import AuditEvent, Entity, Request
from auditstream_schemas.validation import Faults

SCHEMA_JSON: str = json.dumps(
    json.loads(resources.files("auditstream_schemas").joinpath("audit_event.avsc").read_text("utf-8")),
    ensure_ascii=False,
    separators=(",", ":"),
)
"""The Avro schema of an event (audit_event.avsc), compact: the text that is registered."""

_MAGIC = b"\x00"
_HEADER = struct.Struct(">cI")

BODY_ERRORS = (EOFError, ValueError, IndexError, OverflowError, MemoryError, fastavro.read.SchemaResolutionError)
"""What fastavro raises on bytes that are not of the schema."""

_SCHEMA_ERRORS = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    fastavro.schema.SchemaParseException,
    fastavro.schema.UnknownType,
)


def encode_body(event: AuditEvent) -> bytes:
    """Encode an event as an Avro body, without the header of the wire format."""
    return avro_body.encode_body(event)


def encode(event: AuditEvent, schema_id: int) -> bytes:
    """Encode an event as a message.

    Args:
        event: The event.
        schema_id: Id of `SCHEMA_JSON` in the schema registry.
    """
    return join(schema_id, avro_body.encode_body(event))


def split(message: bytes) -> tuple[int, bytes]:
    """Take a message apart into its schema id and its body.

    Raises:
        WireFormatError: It does not start as the wire format does.
    """
    if len(message) < _HEADER.size:
        raise WireFormatError(
            f"a message of {len(message)} bytes has no room for the wire format's header of {_HEADER.size}"
        )
    magic, schema_id = _HEADER.unpack_from(message)
    if magic != _MAGIC:
        raise WireFormatError(
            f"a message starts with byte 0x{magic.hex()} where the wire format has 0x00: "
            "its producer does not use a schema registry"
        )
    return schema_id, message[_HEADER.size :]


def join(schema_id: int, body: bytes) -> bytes:
    """Put a message together again from what `split` gives."""
    return _HEADER.pack(_MAGIC, schema_id) + body


def decode(message: bytes, writer_schema: str | dict[str, Any] | None = None) -> AuditEvent:
    """Decode a message; see `decode_body`."""
    return decode_body(split(message)[1], writer_schema)


def decode_body(body: bytes, writer_schema: str | dict[str, Any] | None = None) -> AuditEvent:
    """Decode an Avro body.

    Args:
        body: The body, without the header of the wire format.
        writer_schema: Schema it was written with, as JSON text or parsed; None for `SCHEMA_JSON`. Fields
            that this schema lacks get their defaults, fields that an event does not have are left out.

    Raises:
        WireFormatError: The bytes are not one record of the writer's schema, or not a valid event.
    """
    record = decode_record(body, writer_schema)
    faults = Faults()
    try:
        for name in ("actor", "target", "scope"):
            record[name] = faults.take(name, _entity, record[name])
        record["request"] = faults.take("request", _request, record["request"])
        faults.raise_any()
        return AuditEvent(**record)
    except InvalidEventError as error:
        raise WireFormatError(f"the body is Avro, but no event: {error}") from error


def decode_record(body: bytes, writer_schema: str | dict[str, Any] | None = None) -> dict[str, Any]:
    """Decode an Avro body into plain values, whether or not they make a valid event.

    Returns:
        The fields of `SCHEMA_JSON` by name: entities and maps as dicts, the id as text, the time as
        nanoseconds.

    Raises:
        WireFormatError: The bytes are not one record of the writer's schema.
    """
    reader = parsed_schema(SCHEMA_JSON)
    if writer_schema is None:
        writer = reader
    else:
        writer = parsed_schema(writer_schema if isinstance(writer_schema, str) else json.dumps(writer_schema))
    stream = BytesIO(body)
    try:
        record = fastavro.schemaless_reader(stream, writer, None if writer is reader else reader)
    except BODY_ERRORS as error:
        raise WireFormatError(_reason(body, writer, error)) from error
    if stream.tell() != len(body):
        raise WireFormatError(
            f"the record ends at byte {stream.tell()} of a body of {len(body)} bytes: "
            "it was written with another schema, or is damaged"
        )
    return cast("dict[str, Any]", record)


@lru_cache(maxsize=256)
def parsed_schema(schema_json: str) -> dict[str, Any]:
    """A record's schema as fastavro wants it, without logical types.

    Raises:
        WireFormatError: It is no schema, or not that of a record.
    """
    try:
        schema = fastavro.parse_schema(_without_logical_types(json.loads(schema_json)))
    except _SCHEMA_ERRORS as error:
        raise WireFormatError(f"the writer's schema cannot be read: {error!r}") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise WireFormatError("the writer's schema is not that of a record")
    return schema


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(part) for part in schema]
    if isinstance(schema, dict):
        return {key: _without_logical_types(part) for key, part in schema.items() if key != "logicalType"}
    return schema


def _reason(body: bytes, writer: dict[str, Any], error: Exception) -> str:
    """Say where a body breaks: read ever more of its fields until it does."""
    end = 0
    for count, field in enumerate(writer["fields"], start=1):
        start = {**writer, "fields": writer["fields"][:count]}
        stream = BytesIO(body)
        try:
            fastavro.schemaless_reader(stream, start, None)
        except BODY_ERRORS as found:
            what = "ends too early" if stream.tell() == len(body) else f"is no such value ({found})"
            return f"field {field['name']!r}, from byte {end} of a body of {len(body)} bytes, {what}"
        end = stream.tell()
    return f"the body does not fit the schema of an event: {error}"


def _entity(record: Any) -> Entity | None:
    return None if record is None else Entity(**record)


def _request(record: Any) -> Request | None:
    return None if record is None else Request(**record)
