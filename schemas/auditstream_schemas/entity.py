"""Entities and requests: the objects inside an event.

In JSON their attributes stand beside ``id``, ``type`` and ``name`` in one object; in Avro they are a map.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from json.encoder import encode_basestring as _quoted

from auditstream_schemas import validation as rules
from auditstream_schemas.avro_body import put_map, put_optional, put_string
from auditstream_schemas.faults import Fault, kind
from auditstream_schemas.string_map import EMPTY

_MISSING = Fault("missing", "a string that is not empty")
_ENTITY_KEYS = ("id", "type", "name")
_REQUEST_KEYS = ("id",)
_entity_attributes = partial(rules.attributes, _ENTITY_KEYS)
_request_attributes = partial(rules.attributes, _REQUEST_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """An actor, a target, or the account that owns a target.

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
        set_fields(
            self,
            id=faults.check("id", rules.filled_text, self.id),
            type=faults.check("type", rules.filled_text, self.type),
            name=None if self.name is None else faults.check("name", rules.text, self.name),
            attributes=faults.check("", _entity_attributes, self.attributes),
        )
        faults.raise_any()

    @classmethod
    def from_value(cls, value: object) -> "Entity":
        """Return an entity as it is; make one of a mapping of id, type, name and attributes side by side.

        Raises:
            Fault: The value is neither.
            InvalidEventError: A member of the mapping breaks the contract.
        """
        if isinstance(value, Entity):
            return value
        if not isinstance(value, (dict, Mapping)):
            raise Fault(kind(value), "an object with id and type, and optionally name and string attributes")
        attributes = {key: item for key, item in value.items() if key not in _ENTITY_KEYS}
        identifier, entity_type = value.get("id", _MISSING), value.get("type", _MISSING)
        return cls(id=identifier, type=entity_type, name=value.get("name"), attributes=attributes)

    def strings(self) -> Iterable[str]:
        """Every string of it, keys included."""
        return (self.id, self.type, self.name or "", *self.attributes.keys(), *self.attributes.values())

    def put_avro(self, pieces: list[bytes]) -> None:
        """Append its Avro encoding."""
        put_string(self.id, pieces)
        put_string(self.type, pieces)
        put_optional(self.name, put_string, pieces)
        put_map(self.attributes, pieces)

    def to_json(self) -> str:
        """Write it as compact JSON; an absent name is left out."""
        name = {} if self.name is None else {"name": self.name}
        return object_json({"id": self.id, "type": self.type, **name, **self.attributes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The external request that caused an event. Events of one request have the same request id.

    Attributes:
        id: Identifier of the request; not empty.
        attributes: Free strings by name, sorted; not named id.
    """

    id: str
    attributes: Mapping[str, str] = EMPTY

    def __post_init__(self) -> None:
        faults = rules.Faults()
        set_fields(
            self,
            id=faults.check("id", rules.filled_text, self.id),
            attributes=faults.check("", _request_attributes, self.attributes),
        )
        faults.raise_any()

    @classmethod
    def from_value(cls, value: object) -> "Request":
        """Return a request as it is; make one of a mapping of id and attributes side by side. Raises as Entity does."""
        if isinstance(value, Request):
            return value
        if not isinstance(value, (dict, Mapping)):
            raise Fault(kind(value), "an object with id, and optionally string attributes")
        attributes = {key: item for key, item in value.items() if key not in _REQUEST_KEYS}
        return cls(id=value.get("id", _MISSING), attributes=attributes)

    def strings(self) -> Iterable[str]:
        """Every string of it, keys included."""
        return (self.id, *self.attributes.keys(), *self.attributes.values())

    def put_avro(self, pieces: list[bytes]) -> None:
        """Append its Avro encoding."""
        put_string(self.id, pieces)
        put_map(self.attributes, pieces)

    def to_json(self) -> str:
        """Write it as compact JSON."""
        return object_json({"id": self.id, **self.attributes})


def set_fields(instance: object, /, **values: object) -> None:
    """Set fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def object_json(strings: Mapping[str, str]) -> str:
    """Write a mapping of strings as one compact JSON object."""
    return "{" + ",".join([f"{_quoted(key)}:{_quoted(value)}" for key, value in strings.items()]) + "}"
