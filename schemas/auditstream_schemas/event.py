"""The audit event.

Every `AuditEvent`, `Entity` and `Request` is valid. The constructors check their values, bring them into
their canonical form, and raise one `InvalidEventError` that names every field at fault. The objects are
immutable, compare by content, and can be hashed, copied and pickled.

In JSON an event is one object with the keys of `FIELDS`; an absent scope, request or name is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from json.encoder import encode_basestring as _quoted
from typing import Any, cast
from uuid import UUID

from auditstream_schemas import validation as rules
from auditstream_schemas.avro_body import put_map, put_optional, put_string, varint
from auditstream_schemas.entity import Entity, Request, object_json, set_fields
from auditstream_schemas.errors import FieldError, InvalidEventError
from auditstream_schemas.faults import Fault, JsonNumber, path_part
from auditstream_schemas.json_text import members
from auditstream_schemas.string_map import EMPTY
from auditstream_schemas.timestamp import format_timestamp

__all__ = ["FIELDS", "MAX_BODY_BYTES", "AuditEvent", "Entity", "Request"]

MAX_BODY_BYTES = 900_000
"""Largest Avro body of an event, in bytes: brokers accept messages of 1 MB by default."""

_FALSE, _TRUE = b"\x00", b"\x01"
_ID_LENGTH = b"\x48"
_MISSING = {
    "action": Fault("missing", "what happened, such as context.create"),
    "actor": Fault("missing", "who did it: an object with id and type"),
    "target": Fault("missing", "what it was done to: an object with id and type"),
    "occurred_at": Fault("missing", "when it happened, such as 2017-12-21T13:50:54.474Z"),
    "id": Fault("missing", "a UUID that identifies the event"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """Who did what to which target, when, and whether it succeeded.

    Attributes:
        action: What happened: lowercase words with dots between, such as ``context.create``.
        actor: Who did it.
        target: What it was done to.
        payload: JSON text of one object, without white space between its tokens, otherwise unchanged.
        occurred_at: When, by the emitter's clock: nanoseconds since 1970-01-01T00:00:00Z.
        metadata: Free strings by name, sorted.
        id: Identifies the event; a second delivery has the same id.
        version: Version of the payload's schema, 1 to 65535.
        scope: The account or organisation that owns the target, or None.
        success: Whether the action succeeded.
        request: The external request that caused the event, or None.
    """

    action: str
    actor: Entity
    target: Entity
    payload: str = "{}"
    occurred_at: int
    metadata: Mapping[str, str] = EMPTY
    id: UUID
    version: int = 1
    scope: Entity | None = None
    success: bool = True
    request: Request | None = None

    def __post_init__(self) -> None:
        faults = rules.Faults()
        set_fields(
            self,
            action=faults.check("action", rules.action, self.action),
            actor=faults.check("actor", Entity.from_value, self.actor),
            target=faults.check("target", Entity.from_value, self.target),
            payload=faults.check("payload", rules.payload, self.payload),
            occurred_at=faults.check("occurred_at", rules.occurred_at, self.occurred_at),
            metadata=faults.check("metadata", rules.strings, self.metadata),
            id=faults.check("id", rules.event_id, self.id),
            version=faults.check("version", rules.version, self.version),
            scope=None if self.scope is None else faults.check("scope", Entity.from_value, self.scope),
            success=faults.check("success", rules.flag, self.success),
            request=None if self.request is None else faults.check("request", Request.from_value, self.request),
        )
        faults.raise_any()
        if self._max_size() > MAX_BODY_BYTES and (size := sum(map(len, self.avro_pieces()))) > MAX_BODY_BYTES:
            faults.add("event", f"{size} bytes as Avro", f"at most {MAX_BODY_BYTES}: keep large content elsewhere")
            faults.raise_any()

    def _max_size(self) -> int:
        """Upper bound of the size of the Avro body in bytes, calculated without encoding it."""
        strings = [self.action, self.payload, *self.metadata.keys(), *self.metadata.values()]
        for part in (self.actor, self.target, self.scope, self.request):
            if part is not None:
                strings += part.strings()
        return 4 * sum(map(len, strings)) + 5 * len(strings) + 100

    @classmethod
    def build(
        cls,
        *,
        action: str,
        actor: Entity | Mapping[str, object],
        target: Entity | Mapping[str, object],
        id: UUID | str,
        occurred_at: datetime | str | int,
        payload: Mapping[str, object] | None = None,
        metadata: Mapping[str, str] | None = None,
        version: int = 1,
        scope: Entity | Mapping[str, object] | None = None,
        success: bool = True,
        request: Request | Mapping[str, object] | None = None,
    ) -> "AuditEvent":
        """Make an event of Python values, which become the attributes of the class.

        An entity is an `Entity`, or a mapping of id, type, name and attributes side by side; a request is a `Request`,
        or a mapping of id and attributes. ``id`` is a UUID of any variant and version; ``occurred_at`` is a datetime
        with a zone, ISO-8601 text with a zone, or nanoseconds since 1970. A payload has only values that JSON has;
        None is an empty object.

        Raises:
            InvalidEventError: The event breaks the contract; names every field at fault.
        """
        # The constructor converts all of these; the types of its fields are those after the conversion.
        return cls(
            action=action,
            actor=cast("Entity", actor),
            target=cast("Entity", target),
            payload=cast("str", {} if payload is None else payload),
            occurred_at=cast("int", occurred_at),
            metadata=EMPTY if metadata is None else metadata,
            id=cast("UUID", id),
            version=version,
            scope=cast("Entity | None", scope),
            success=success,
            request=cast("Request | None", request),
        )

    @classmethod
    def from_json(cls, text: str | bytes, *, defaults: Mapping[str, object] | None = None) -> "AuditEvent":
        """Read the JSON of one event; the text of the payload is preserved.

        Args:
            text: One JSON object, as `to_json` writes it or with keys in any order; bytes are UTF-8.
            defaults: Values, as for `build`, of fields that the text may lack.

        Raises:
            InvalidEventError: The text breaks the contract; names every field at fault.
        """
        values: dict[str, Any] = {**_MISSING, **(defaults or {}), **_members(text)}
        known = {key: value for key, value in values.items() if key in FIELDS}
        faults = rules.Faults()
        event: AuditEvent = faults.check("", lambda arguments: cls(**arguments), known)
        for key in (key for key in values if key not in known):
            faults.add(path_part(key), "a field that events do not have", f"one of {', '.join(FIELDS)}")
        faults.raise_any()
        return event

    def to_json(self) -> str:
        """Write the event as compact JSON, keys in the order of `FIELDS`, absent parts left out."""
        parts = [
            f'"action":{_quoted(self.action)}',
            f'"actor":{self.actor.to_json()}',
            f'"target":{self.target.to_json()}',
            f'"payload":{self.payload}',
            f'"occurred_at":"{format_timestamp(self.occurred_at)}"',
            f'"metadata":{object_json(self.metadata)}',
            f'"id":"{self.id}"',
            f'"version":{self.version}',
        ]
        if self.scope is not None:
            parts.append(f'"scope":{self.scope.to_json()}')
        parts.append(f'"success":{"true" if self.success else "false"}')
        if self.request is not None:
            parts.append(f'"request":{self.request.to_json()}')
        return "{" + ",".join(parts) + "}"

    def avro_pieces(self) -> list[bytes]:
        """The Avro body in pieces, field by field in the order of audit_event.avsc."""
        pieces = [_ID_LENGTH, str(self.id).encode(), varint(self.occurred_at)]
        put_string(self.action, pieces)
        pieces.append(varint(self.version))
        self.actor.put_avro(pieces)
        self.target.put_avro(pieces)
        put_string(self.payload, pieces)
        put_map(self.metadata, pieces)
        put_optional(self.scope, Entity.put_avro, pieces)
        pieces.append(_TRUE if self.success else _FALSE)
        put_optional(self.request, Request.put_avro, pieces)
        return pieces


FIELDS = tuple(field.name for field in fields(AuditEvent))
"""The fields of an event in their public order: JSON keys, CSV columns and ClickHouse columns."""


def _members(text: str | bytes) -> dict[str, Any]:
    """The members of an event's JSON by key, with a `Fault` for each value that is refused."""
    values: dict[str, Any] = {}
    try:
        for key, value in members(text if isinstance(text, str) else text.decode(), raw="payload"):
            values[key] = Fault("given twice", "each key once") if key in values else value
    except Fault as fault:
        raise InvalidEventError((FieldError("event", fault.was, fault.expected),)) from None
    except UnicodeDecodeError as error:
        was = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise InvalidEventError((FieldError("event", was, "UTF-8"),)) from None
    if isinstance(values.get("occurred_at"), int | JsonNumber):
        values["occurred_at"] = Fault("a number", "ISO-8601 text in quotes, such as 2017-12-21T13:50:54.474Z")
    return values
