"""The known actions: their meaning, the type of their target, and the schemas of their payloads.

There is one JSON file per action beside this module. An action without a file is well-formed but unlisted.
The payload schemas are closed (``additionalProperties: false``), so that a misspelt key is refused when the
event is emitted, and typed views of the payloads are complete. A new optional key is added to the schema of
its version; any other change is a new version.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import jsonschema_rs

from auditstream_schemas.errors import CatalogError
from auditstream_schemas.event import AuditEvent

_HIDDEN = "the value"  # Stands for the value in messages, because payloads may be secret.
_ERRORS_SHOWN = 10
_ALWAYS_INT_DIGITS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One known action.

    Attributes:
        action: The action's name.
        description: What happened, in a sentence.
        target_type: Type of the target.
        payload_schemas: JSON Schema (2020-12) of the payload by version.
        example: The JSON of one event.
    """

    action: str
    description: str
    target_type: str
    payload_schemas: Mapping[int, dict[str, Any]]
    example: dict[str, Any]


@cache
def catalog() -> Mapping[str, CatalogEntry]:
    """Return the known actions by name, in the order of their names; read once."""
    files = (file for file in resources.files("auditstream_schemas.catalog").iterdir() if file.name.endswith(".json"))
    entries = (_entry(**json.loads(file.read_text("utf-8"))) for file in files)
    return MappingProxyType({entry.action: entry for entry in sorted(entries, key=attrgetter("action"))})


@cache
def catalog_sha256() -> str:
    """SHA-256 of the catalog's content (examples left out), hexadecimal. Equal catalogs have equal digests."""
    content: list[list[Any]] = [
        [entry.action, entry.description, entry.target_type, dict(entry.payload_schemas)]
        for entry in catalog().values()
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def validate_payload(event: AuditEvent, *, strict: bool = False) -> None:
    """Check an event's payload against the schema of its action and version.

    Integers of any length and decimals are compared exactly. ``strict`` refuses an action, or a version of its
    payload, that the catalog does not list.

    Raises:
        CatalogError: The payload breaks its schema; the message has each path and rule. Or ``strict`` is true and
            there is no schema.
    """
    validator = _validators().get((event.action, event.version))
    if validator is None:
        if strict:
            raise CatalogError(_unlisted(event))
        return
    payload = json.loads(event.payload, parse_int=_integer, parse_float=Decimal)
    if not validator.is_valid(payload):
        errors = _errors(validator, payload)
        raise CatalogError(f"the payload of {event.action}, version {event.version}, breaks its schema: {errors}")


def _entry(payload: dict[str, Any], **fields: Any) -> CatalogEntry:
    schemas = MappingProxyType({int(version): schema for version, schema in payload.items()})
    return CatalogEntry(payload_schemas=schemas, **fields)


@cache
def _validators() -> dict[tuple[str, int], jsonschema_rs.Draft202012Validator]:
    return {
        (entry.action, version): jsonschema_rs.Draft202012Validator(schema, validate_formats=True, mask=_HIDDEN)
        for entry in catalog().values()
        for version, schema in entry.payload_schemas.items()
    }


def _unlisted(event: AuditEvent) -> str:
    entry = catalog().get(event.action)
    if entry is None:
        return f"the catalog has no action {event.action}: add a file for it, or turn strict mode off"
    versions = ", ".join(str(version) for version in sorted(entry.payload_schemas))
    fix = "add its schema, or turn strict mode off"
    return f"the catalog has no version {event.version} of {event.action}, only {versions}: {fix}"


def _integer(text: str) -> int | Decimal:
    # Python's int() refuses more than 4300 digits; a Decimal without a fraction validates as an integer too.
    return int(text) if len(text) < _ALWAYS_INT_DIGITS else Decimal(text)


def _errors(validator: jsonschema_rs.Draft202012Validator, payload: object) -> str:
    try:
        errors = [_message(error) for error in validator.iter_errors(payload)]
    except ValueError:
        # jsonschema-rs converts the value of each error, and Python converts no integer of so many digits.
        return "the path is unknown, because the payload has an integer of more than 4300 digits"
    more = [f"and {len(errors) - _ERRORS_SHOWN} more"] if len(errors) > _ERRORS_SHOWN else []
    return "; ".join(errors[:_ERRORS_SHOWN] + more)


def _message(error: jsonschema_rs.ValidationError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    rule = "/".join(str(part) for part in error.schema_path)
    return f"payload{path}: {error.message} (rule {rule})"
