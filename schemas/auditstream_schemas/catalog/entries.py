"""The known actions: what they mean, what they are done to and what their payloads hold.

One JSON file an action lies beside this module. An action without a file is well-formed but unlisted. The
payload schemas are closed (``additionalProperties: false``): a misspelt key is told when it is written, not
missed when it is looked for, and typed views of the payloads are complete. A new optional key is added to
the schema of its version; any other change is a new version.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import jsonschema_rs

from auditstream_schemas.errors import CatalogError
from auditstream_schemas.event import AuditEvent

_HIDDEN = "the value"  # Payloads may be secret.
_FAULTS_SHOWN = 10
_ALWAYS_INT_DIGITS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One known action.

    Attributes:
        action: The action's name.
        description: What happened, in a sentence.
        target_type: Type of the entity that it is done to.
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
    entries = (_entry(json.loads(file.read_text("utf-8"))) for file in files)
    return MappingProxyType({entry.action: entry for entry in sorted(entries, key=lambda entry: entry.action)})


@cache
def catalog_sha256() -> str:
    """SHA-256 of the catalog's content, hexadecimal: two versions that know the same actions have the same."""
    found = [
        [
            entry.action,
            entry.description,
            entry.target_type,
            {str(version): schema for version, schema in entry.payload_schemas.items()},
        ]
        for entry in catalog().values()
    ]
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def validate_payload(event: AuditEvent, *, strict: bool = False) -> None:
    """Hold an event's payload against the schema of its action and version.

    Integers of any length and decimals are compared exactly.

    Args:
        event: The event.
        strict: Refuse an action, or a version of its payload, that the catalog does not list.

    Raises:
        CatalogError: The payload breaks its schema, with each place and rule; or, if strict, there is none.
    """
    validator = _validators().get((event.action, event.version))
    if validator is None:
        if strict:
            raise CatalogError(_unlisted(event))
        return
    payload = json.loads(event.payload, parse_int=_integer, parse_float=Decimal)
    if validator.is_valid(payload):
        return
    raise CatalogError(
        f"the payload of {event.action}, version {event.version}, breaks its schema: {_faults(validator, payload)}"
    )


def _entry(found: dict[str, Any]) -> CatalogEntry:
    return CatalogEntry(
        action=found["action"],
        description=found["description"],
        target_type=found["target_type"],
        payload_schemas=MappingProxyType({int(version): schema for version, schema in found["payload"].items()}),
        example=found["example"],
    )


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
        return f"the catalog has no action {event.action}: add a file for it, or do without strict mode"
    versions = ", ".join(str(version) for version in sorted(entry.payload_schemas))
    return (
        f"the catalog has no version {event.version} of {event.action}, only {versions}: "
        "add its schema, or do without strict mode"
    )


def _integer(text: str) -> int | Decimal:
    # Python's int() refuses 4300 digits and more; a Decimal of them validates as an integer too.
    return int(text) if len(text) < _ALWAYS_INT_DIGITS else Decimal(text)


def _faults(validator: jsonschema_rs.Draft202012Validator, payload: object) -> str:
    try:
        faults = [_told(error) for error in validator.iter_errors(payload)]
    except ValueError:
        # Each error carries its value as Python has it, and Python refuses to read so many digits.
        return "where cannot be told, since it holds an integer of more than 4300 digits"
    more = [f"and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
    return "; ".join(faults[:_FAULTS_SHOWN] + more)


def _told(error: jsonschema_rs.ValidationError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    rule = "/".join(str(part) for part in error.schema_path)
    return f"payload{path}: {error.message} (rule {rule})"
