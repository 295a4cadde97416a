"""The record inside a dead letter: decoded, as JSON to edit, or as a hexdump."""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from auditstream_ops.dead_letters.dead_letter import DeadLetter
from auditstream_schemas.codec import decode_record, split
from auditstream_schemas.errors import RegistryError, UnknownSchemaError, WireFormatError
from auditstream_schemas.event import FIELDS
from auditstream_schemas.faults import Fault
from auditstream_schemas.json_text import compact_object
from auditstream_schemas.registry import RegistryClient
from auditstream_schemas.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, format_timestamp
from auditstream_schemas.validation import event_id

_BYTES_A_LINE = 16
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class RecordDecoder:
    """Decodes the records of dead letters with their writer schemas; fetches each schema from the registry once.

    Every method but `try_decode` raises RegistryError if the registry is not reachable, or refuses.
    """

    def __init__(self, registry: RegistryClient) -> None:
        self._registry = registry
        self._schemas: dict[int, str | None] = {}

    def record(self, dead_letter: DeadLetter) -> dict[str, Any]:
        """The fields of the record, which need not be a valid event; see ``codec.decode_record``.

        Raises:
            WireFormatError: The bytes are not an encoded record.
            UnknownSchemaError: The registry does not have the schema.
        """
        schema_id, body = split(dead_letter.value)
        if schema_id not in self._schemas:
            try:
                self._schemas[schema_id] = self._registry.schema(schema_id)
            except UnknownSchemaError:
                self._schemas[schema_id] = None
        schema = self._schemas[schema_id]
        if schema is None:
            raise UnknownSchemaError(f"the registry has no schema {schema_id}")
        return decode_record(body, schema)

    def action(self, dead_letter: DeadLetter) -> str | None:
        """The action inside the record; None if it cannot be decoded."""
        try:
            return str(self.record(dead_letter)["action"])
        except (WireFormatError, UnknownSchemaError):
            return None

    def event_id(self, dead_letter: DeadLetter) -> UUID | None:
        """The id of the event: from the record, else from its key; None if neither is a UUID."""
        try:
            return event_id(self.record(dead_letter)["id"])
        except (WireFormatError, UnknownSchemaError, Fault):
            pass
        try:
            return event_id((dead_letter.key or b"").decode("utf-8", "replace"))
        except Fault:
            return None

    def try_decode(self, dead_letter: DeadLetter) -> tuple[dict[str, Any] | None, str]:
        """The fields of the record, or None and the reason, also while the registry is away."""
        try:
            return self.record(dead_letter), ""
        except (WireFormatError, RegistryError) as error:
            return None, str(error)


def event_json(record: dict[str, Any]) -> str:
    """The JSON of one event, indented; the record need not be a valid event.

    A payload that is JSON is kept, character for character. A broken payload becomes a string.
    """
    values = {
        **{name: json.dumps(record[name], ensure_ascii=False) for name in ("action", "id", "version", "success")},
        "actor": _object(record["actor"]),
        "target": _object(record["target"]),
        "payload": _payload(record["payload"]),
        "occurred_at": json.dumps(_time(record["occurred_at"])),
        "metadata": _indented(record["metadata"]),
        "scope": _object(record["scope"]),
        "request": _object(record["request"]),
    }
    return "{\n" + ",\n".join(f'  "{name}": {values[name]}' for name in FIELDS if values[name] != "null") + "\n}"


def hexdump(data: bytes) -> Iterator[str]:
    """Lines of an offset, sixteen bytes in hexadecimal, and the same bytes as ASCII."""
    for start in range(0, len(data), _BYTES_A_LINE):
        row = data[start : start + _BYTES_A_LINE]
        yield f"{start:08x}  {row.hex(' '):<{3 * _BYTES_A_LINE}} {_UNPRINTABLE.sub('.', row.decode('latin-1'))}"


def printable(text: str) -> str:
    r"""The text with control characters escaped (``\u001b``), so that it cannot steer a terminal. Line breaks stay."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1] for character in text
    ).replace("\x7f", "\\u007f")


def _object(entity: dict[str, Any] | None) -> str:
    if entity is None:
        return "null"
    attributes = entity["attributes"]
    plain = {name: value for name, value in entity.items() if name != "attributes" and value is not None}
    # An attribute with the name of a field would hide the field. Then the attributes stay in an object of their own.
    return _indented({**plain, "attributes": attributes} if attributes.keys() & entity.keys() else plain | attributes)


def _payload(text: str) -> str:
    try:
        return compact_object(text)
    except Fault:
        return json.dumps(text, ensure_ascii=False)


def _time(nanoseconds: int) -> str | int:
    return format_timestamp(nanoseconds) if MIN_TIMESTAMP <= nanoseconds <= MAX_TIMESTAMP else nanoseconds


def _indented(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\n  ")
