"""The audit event and its parts.

Every value of these classes is valid: the constructors check what they are given, bring it into its
canonical form and raise one `InvalidEventError` that names every field at fault. They are frozen all
through, compare by content, and can be hashed, copied and pickled.

In JSON an event is one object with the keys of `FIELDS`; attributes stand beside ``id``, ``type`` and
``name`` in the object of their entity, and an absent scope, request or name is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from json.encoder import encode_basestring as _quoted
from typing import Any, cast
from uuid import UUID

from auditstream_schemas import validation as rules
from auditstream_schemas.avro_body import body_size
from auditstream_schemas.errors import FieldError, InvalidEventError
from auditstream_schemas.faults import Fault, JsonNumber, kind, part
from auditstream_schemas.json_text import members
from auditstream_schemas.string_map import EMPTY
from auditstream_schemas.timestamp import format_timestamp
from auditstream_schemas.validation import ACTION_PATTERN

__all__ = ["ACTION_PATTERN", "FIELDS", "MAX_BODY_BYTES", "AuditEvent", "Entity", "Request"]

FIELDS = (
    "action",
    "actor",
    "target",
    "payload",
    "occurred_at",
    "metadata",
    "id",
    "version",
    "scope",
    "success",
    "request",
)
"""The fields of an event in their public order: JSON keys, CSV columns and ClickHouse columns."""

MAX_BODY_BYTES = 900_000
"""Largest Avro body of an event: brokers take messages of 1 MB by default."""

_MISSING = {
    "action": Fault("missing", "what happened, such as context.create"),
    "actor": Fault("missing", "who did it: an object with id and type"),
    "target": Fault("missing", "what it was done to: an object with id and type"),
    "occurred_at": Fault("missing", "when it happened, such as 2017-12-21T13:50:54.474Z"),
    "id": Fault("missing", "a UUID that identifies the event"),
}
_MISSING_PART = Fault("missing", "a string that is not empty")
_ENTITY_KEYS = ("id", "type", "name")
_REQUEST_KEYS = ("id",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """Who did something, what it was done to, or the account that owns it.

    Attributes:
        id: Identifier within its type; not empty.
        type: What kind of thing it is, such as ``user``; not empty.
        name: Name for people to read, or None.
        attributes: Free strings by name, sorted; not named id, type or name.
    """

    id: str
    type: str
    name: str | None = None
    attributes: Mapping[str, str] = EMPTY

    def __post_init__(self) -> None:
        faults = rules.Faults()
        _set(
            self,
            id=faults.take("id", rules.filled_text, self.id),
            type=faults.take("type", rules.filled_text, self.type),
            name=faults.take("name", rules.optional_text, self.name),
            attributes=faults.take("", _entity_attributes, self.attributes),
        )
        faults.raise_any()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The external request that caused an event; connects the events of one request.

    Attributes:
        id: Identifier of the request; not empty.
        attributes: Free strings by name, sorted; not named id.
    """

    id: str
    attributes: Mapping[str, str] = EMPTY

    def __post_init__(self) -> None:
        faults = rules.Faults()
        _set(
            self,
            id=faults.take("id", rules.filled_text, self.id),
            attributes=faults.take("", _request_attributes, self.attributes),
        )
        faults.raise_any()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """Who did what to which target, when, and whether it succeeded.

    Attributes:
        action: What happened: lowercase words with dots between, such as ``context.create``.
        actor: Who did it.
        target: What it was done to.
        payload: Compact JSON text of one object, as it came but for white space between tokens.
        occurred_at: When, by the emitter's clock: nanoseconds since 1970-01-01T00:00:00Z.
        metadata: Free strings by name, sorted.
        id: Identifies the event; a second delivery has the same.
        version: Version of the payload's schema, 1 to 65535.
        scope: The account or organisation that owns the target, or None.
        success: Whether the action succeeded.
        request: The external request that caused it, or None.
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
        _set(
            self,
            action=faults.take("action", rules.action, self.action),
            actor=faults.take("actor", _entity, self.actor),
            target=faults.take("target", _entity, self.target),
            payload=faults.take("payload", rules.payload, self.payload),
            occurred_at=faults.take("occurred_at", rules.occurred_at, self.occurred_at),
            metadata=faults.take("metadata", rules.strings, self.metadata),
            id=faults.take("id", rules.event_id, self.id),
            version=faults.take("version", rules.version, self.version),
            scope=faults.take("scope", _optional_entity, self.scope),
            success=faults.take("success", rules.flag, self.success),
            request=faults.take("request", _optional_request, self.request),
        )
        faults.raise_any()
        if self._largest_size() > MAX_BODY_BYTES and (size := body_size(self)) > MAX_BODY_BYTES:
            faults.add("event", f"{size} bytes as Avro", f"at most {MAX_BODY_BYTES}: keep large things elsewhere")
            faults.raise_any()

    def _largest_size(self) -> int:
        """Bytes that the Avro body has at most, found without encoding it."""
        strings = [self.action, self.payload, *_strings_of(self.actor), *_strings_of(self.target)]
        strings += self.metadata.keys()
        strings += self.metadata.values()
        if self.scope is not None:
            strings += _strings_of(self.scope)
        if self.request is not None:
            strings += (self.request.id, *self.request.attributes.keys(), *self.request.attributes.values())
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
        """Make an event of Python values.

        Args:
            action: What happened.
            actor: Who did it: an `Entity`, or a mapping of id, type, name and attributes side by side.
            target: What it was done to; the same.
            id: A UUID of any variant and version.
            occurred_at: A datetime with a zone, ISO-8601 text with a zone, or nanoseconds since 1970.
            payload: What JSON can hold; None for an empty object.
            metadata: Strings by name.
            version: Version of the payload's schema.
            scope: The account that owns the target: an `Entity` or a mapping.
            success: Whether the action succeeded.
            request: What caused the event: a `Request`, or a mapping of id and attributes side by side.

        Raises:
            InvalidEventError: Something breaks the contract; names every field at fault.
        """
        # The constructor reads all of these; its types say what an event has afterwards.
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
        """Read the JSON of one event; the payload keeps its text.

        Args:
            text: One JSON object, as `to_json` writes it or with keys in any order; bytes are UTF-8.
            defaults: Values, as for `build`, of fields that the text may lack.

        Raises:
            InvalidEventError: Something breaks the contract; names every field at fault.
        """
        found: dict[str, Any] = {**_MISSING, **(defaults or {}), **_members(text)}
        known = {key: value for key, value in found.items() if key in FIELDS}
        expected = f"one of {', '.join(FIELDS)}"
        unknown = tuple(
            FieldError(part(key), "a field that events do not have", expected) for key in found if key not in known
        )
        try:
            event = cls(**known)
        except InvalidEventError as error:
            raise InvalidEventError(error.errors + unknown) from None
        if unknown:
            raise InvalidEventError(unknown)
        return event

    def to_json(self) -> str:
        """Write the event as compact JSON, keys in the order of `FIELDS`, absent parts left out."""
        parts = [
            f'"action":{_quoted(self.action)}',
            f'"actor":{_entity_json(self.actor)}',
            f'"target":{_entity_json(self.target)}',
            f'"payload":{self.payload}',
            f'"occurred_at":"{format_timestamp(self.occurred_at)}"',
            f'"metadata":{_object_json(self.metadata)}',
            f'"id":"{self.id}"',
            f'"version":{self.version}',
        ]
        if self.scope is not None:
            parts.append(f'"scope":{_entity_json(self.scope)}')
        parts.append(f'"success":{"true" if self.success else "false"}')
        if self.request is not None:
            parts.append(f'"request":{_object_json({"id": self.request.id, **self.request.attributes})}')
        return "{" + ",".join(parts) + "}"


def _entity(value: object) -> Entity:
    if isinstance(value, Entity):
        return value
    if not isinstance(value, (dict, Mapping)):
        raise Fault(kind(value), "an object with id and type, and perhaps name and string attributes")
    return Entity(
        id=value.get("id", _MISSING_PART),
        type=value.get("type", _MISSING_PART),
        name=value.get("name"),
        attributes={key: inner for key, inner in value.items() if key not in _ENTITY_KEYS},
    )


def _optional_entity(value: object) -> Entity | None:
    return None if value is None else _entity(value)


def _optional_request(value: object) -> Request | None:
    if value is None or isinstance(value, Request):
        return value
    if not isinstance(value, (dict, Mapping)):
        raise Fault(kind(value), "an object with id, and perhaps string attributes")
    return Request(
        id=value.get("id", _MISSING_PART),
        attributes={key: inner for key, inner in value.items() if key not in _REQUEST_KEYS},
    )


def _entity_attributes(value: object) -> Mapping[str, str]:
    return rules.attributes(value, _ENTITY_KEYS)


def _request_attributes(value: object) -> Mapping[str, str]:
    return rules.attributes(value, _REQUEST_KEYS)


def _set(value: object, /, **fields: object) -> None:
    for name, content in fields.items():
        object.__setattr__(value, name, content)


def _members(text: str | bytes) -> dict[str, Any]:
    """The members of an event's JSON by key; a `Fault` in place of a value that is refused."""
    found: dict[str, Any] = {}
    try:
        for key, value in members(text if isinstance(text, str) else text.decode(), raw="payload"):
            found[key] = Fault("given twice", "each key once") if key in found else value
    except Fault as fault:
        raise InvalidEventError((FieldError("event", fault.was, fault.expected),)) from None
    except UnicodeDecodeError as error:
        was = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise InvalidEventError((FieldError("event", was, "UTF-8"),)) from None
    if isinstance(found.get("occurred_at"), int | JsonNumber):
        found["occurred_at"] = Fault("a number", "ISO-8601 text in quotes, such as 2017-12-21T13:50:54.474Z")
    return found


def _strings_of(entity: Entity) -> tuple[str, ...]:
    attributes = entity.attributes
    return (entity.id, entity.type, entity.name or "", *attributes.keys(), *attributes.values())


def _entity_json(entity: Entity) -> str:
    own = {"id": entity.id, "type": entity.type}
    if entity.name is not None:
        own["name"] = entity.name
    return _object_json({**own, **entity.attributes})


def _object_json(strings: Mapping[str, str]) -> str:
    return "{" + ",".join([f"{_quoted(key)}:{_quoted(value)}" for key, value in strings.items()]) + "}"
