"""What is inside a letter: its record, decoded if it can be, as JSON to edit or as a hexdump."""

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
    """Decodes letters by the schemas they were written with, each asked of the registry once."""

    def __init__(self, registry: RegistryClient) -> None:
        self._registry = registry
        self._schemas: dict[int, str | None] = {}

    def record(self, letter: DeadLetter) -> dict[str, Any]:
        """The fields of the record, whether or not they make a valid event; see ``codec.decode_record``.

        Raises:
            WireFormatError: The bytes are no record.
            UnknownSchemaError: The registry does not have the schema.
            RegistryError: The registry is away or refuses.
        """
        schema_id, body = split(letter.value)
        if schema_id not in self._schemas:
            try:
                self._schemas[schema_id] = self._registry.schema(schema_id)
            except UnknownSchemaError:
                self._schemas[schema_id] = None
        schema = self._schemas[schema_id]
        if schema is None:
            raise UnknownSchemaError(f"the registry has no schema {schema_id}")
        return decode_record(body, schema)

    def action(self, letter: DeadLetter) -> str | None:
        """The action inside the record; None if it cannot be decoded.

        Raises:
            RegistryError: The registry is away or refuses.
        """
        try:
            return str(self.record(letter)["action"])
        except (WireFormatError, UnknownSchemaError):
            return None

    def event_id(self, letter: DeadLetter) -> UUID | None:
        """The id of the letter's event: the one inside the record, else its key; None if neither is a UUID.

        Raises:
            RegistryError: The registry is away or refuses.
        """
        try:
            return event_id(self.record(letter)["id"])
        except (WireFormatError, UnknownSchemaError, Fault):
            pass
        try:
            return event_id((letter.key or b"").decode("utf-8", "replace"))
        except Fault:
            return None

    def described(self, letter: DeadLetter) -> tuple[dict[str, Any] | None, str]:
        """The record, or None and why it cannot be had. The registry may be away."""
        try:
            return self.record(letter), ""
        except (WireFormatError, RegistryError) as error:
            return None, str(error)


def event_json(record: dict[str, Any]) -> str:
    """The JSON shape of one event, indented, even if the record makes no valid one.

    A payload that is JSON stands in it as it is, character for character; another one as a string.
    """
    values = {
        **{name: json.dumps(record[name], ensure_ascii=False) for name in ("action", "id", "version", "success")},
        "actor": _object(record["actor"]),
        "target": _object(record["target"]),
        "payload": _payload(record["payload"]),
        "occurred_at": json.dumps(_moment(record["occurred_at"])),
        "metadata": _indented(record["metadata"]),
        "scope": _object(record["scope"]),
        "request": _object(record["request"]),
    }
    return "{\n" + ",\n".join(f'  "{name}": {values[name]}' for name in FIELDS if values[name] != "null") + "\n}"


def hexdump(data: bytes) -> Iterator[str]:
    """Lines of offset, sixteen bytes, and the same as ASCII."""
    for start in range(0, len(data), _BYTES_A_LINE):
        part = data[start : start + _BYTES_A_LINE]
        yield f"{start:08x}  {part.hex(' '):<{3 * _BYTES_A_LINE}} {_UNPRINTABLE.sub('.', part.decode('latin-1'))}"


def printable(text: str) -> str:
    r"""The text with escapes (``\u001b``) for what would steer a terminal, line breaks excepted."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1] for character in text
    ).replace("\x7f", "\\u007f")


def _object(part: dict[str, Any] | None) -> str:
    if part is None:
        return "null"
    attributes = part["attributes"]
    plain = {name: value for name, value in part.items() if name != "attributes" and value is not None}
    # Attributes that would hide a name of their object stay apart, for a person to see.
    return _indented({**plain, "attributes": attributes} if attributes.keys() & part.keys() else plain | attributes)


def _payload(text: str) -> str:
    try:
        return compact_object(text)
    except Fault:
        return json.dumps(text, ensure_ascii=False)


def _moment(nanoseconds: int) -> str | int:
    return format_timestamp(nanoseconds) if MIN_TIMESTAMP <= nanoseconds <= MAX_TIMESTAMP else nanoseconds


def _indented(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\n  ")
