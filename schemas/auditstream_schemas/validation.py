"""The rules of an event's fields.

Each rule takes one value and returns its canonical form, or raises `Fault`. `Faults` collects the faults of
all fields into one error.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from auditstream_schemas.errors import FieldError, InvalidEventError
from auditstream_schemas.faults import Fault, kind, path_part, shown
from auditstream_schemas.json_text import ENCODABLE, CompactJson, compact_object, unencodable
from auditstream_schemas.json_values import dump_object
from auditstream_schemas.string_map import EMPTY, StringMap
from auditstream_schemas.timestamp import from_datetime, in_range, parse_timestamp

ACTION_PATTERN = r"^[a-z](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z](?:[a-z0-9_-]*[a-z0-9])?)+$"
"""Regular expression of a whole action, with the same meaning in Python and in RE2 (ClickHouse)."""

_ACTION = re.compile(ACTION_PATTERN)
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_STRINGS = "a mapping of strings to strings"

_T = TypeVar("_T")


class Faults:
    """Collects the faults of many fields, to raise them as one `InvalidEventError`."""

    __slots__ = ("_errors",)

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    def add(self, field: str, was: str, expected: str) -> None:
        """Add one fault."""
        self._errors.append(FieldError(field, was, expected))

    def check(self, field: str, rule: Callable[[Any], _T], value: Any) -> Any:
        """Apply a rule to a field's value. Return its result, or add its faults and return None.

        The rule may raise a `Fault`, or an `InvalidEventError` about parts of the value. A value that is a
        `Fault` itself was refused earlier, and no rule accepts it.
        """
        try:
            return rule(value)
        except Fault as error:
            fault = value if isinstance(value, Fault) else error
            self.add(field, fault.was, fault.expected)
        except InvalidEventError as error:
            for inner in error.errors:
                separator = "" if not field or inner.field.startswith("[") else "."
                self.add(f"{field}{separator}{inner.field}", inner.was, inner.expected)
        return None

    def raise_any(self) -> None:
        """Raise an `InvalidEventError` with the faults, if there are any."""
        if self._errors:
            raise InvalidEventError(tuple(self._errors))


def text(value: object) -> str:
    """A string without NUL and lone surrogates."""
    if not isinstance(value, str):
        raise Fault(shown(value), "a string")
    if (character := unencodable(value)) is not None:
        raise Fault(f"a string with {character}", ENCODABLE)
    # A member of a str enumeration becomes a plain string.
    return str.__str__(value)


def filled_text(value: object) -> str:
    """A string that is not empty."""
    if value == "":
        raise Fault("''", "a string that is not empty")
    return text(value)


def strings(value: object) -> StringMap:
    """A mapping of strings to strings. Errors do not show its values, because they may be secret."""
    if type(value) is StringMap:
        return value
    if not isinstance(value, (dict, Mapping)):
        raise Fault(kind(value), _STRINGS)
    if not value:
        return EMPTY
    faults = Faults()
    items = {}
    for key, item in value.items():
        if not isinstance(item, str):
            faults.add(path_part(key), kind(item), "a string (write other values as text)")
        elif not isinstance(key, str):
            faults.add(path_part(key), f"a key that is {kind(key)}", "keys that are strings")
        elif (character := unencodable(key)) is not None:
            faults.add(path_part(key), f"a key with {character}", ENCODABLE)
        elif (character := unencodable(item)) is not None:
            faults.add(path_part(key), f"a string with {character}", ENCODABLE)
        else:
            items[str.__str__(key)] = str.__str__(item)
    faults.raise_any()
    return StringMap(items)


def attributes(reserved: tuple[str, ...], value: object) -> StringMap:
    """Free string attributes. Reserved are the names of the fields that stand beside them in JSON."""
    if not isinstance(value, (dict, Mapping)):
        raise InvalidEventError((FieldError("attributes", kind(value), _STRINGS),))
    items = strings(value)
    if clashes := [name for name in reserved if name in items]:
        expected = f"names other than {', '.join(reserved)}"
        raise InvalidEventError(tuple(FieldError(name, "an attribute", expected) for name in clashes))
    return items


def action(value: object) -> str:
    """Two or more lowercase ASCII words with dots between."""
    name = text(value)
    if _ACTION.fullmatch(name) is None:
        raise Fault(
            shown(name),
            "two or more lowercase ASCII words with dots between, such as context.create or user.logged_in; "
            "a word starts with a letter and may have digits, _ and - inside",
        )
    return name


def event_id(value: object) -> UUID:
    """A UUID of any variant and version, as `UUID` or 8-4-4-4-12 hexadecimal digits."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, str) and _UUID.fullmatch(value) is not None:
        return UUID(value)
    raise Fault(shown(value), "a UUID such as 019b76da-a800-7000-8000-0123456789ab")


def occurred_at(value: object) -> int:
    """An instant: a datetime with a zone, ISO-8601 text with a zone, or nanoseconds since 1970."""
    if isinstance(value, str):
        return parse_timestamp(value)
    if isinstance(value, dt.datetime):
        return from_datetime(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return in_range(int(value))
    raise Fault(shown(value), "ISO-8601 text, a datetime with a zone, or nanoseconds since 1970 as an integer")


def version(value: object) -> int:
    """Version of the payload's schema."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65_535:
        return int(value)
    raise Fault(shown(value), "an integer from 1 to 65535")


def flag(value: object) -> bool:
    """True or False; other values are not converted."""
    if isinstance(value, bool):
        return value
    raise Fault(shown(value), "true or false")


def payload(value: object) -> CompactJson:
    """JSON text of one object, or a mapping to write as one. Errors never show it."""
    if type(value) is CompactJson:
        return value
    if isinstance(value, str):
        return compact_object(value)
    if not isinstance(value, (dict, Mapping)):
        raise Fault(kind(value), "a JSON object")
    return dump_object(value)
