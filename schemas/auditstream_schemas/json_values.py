"""Python values as compact JSON text, without guessing.

Integers are written exactly, floats as their shortest `repr`, text as itself. What JSON has no word for (a
datetime, a Decimal, bytes, a set, NaN) is refused with its place: the caller decides how to write it.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from auditstream_schemas.errors import FieldError, InvalidEventError
from auditstream_schemas.faults import Fault, kind, part
from auditstream_schemas.json_text import MAX_DEPTH, CompactJson, unencodable

_ENCODABLE = "only characters that UTF-8 and ClickHouse hold"
_ALWAYS_SHORT_BITS = 2_000


def dump_object(value: Mapping[str, Any]) -> CompactJson:
    """Write a mapping as compact JSON.

    Raises:
        InvalidEventError: JSON cannot hold parts of it; names their paths within the mapping.
        Fault: It is nested deeper than `MAX_DEPTH`, or holds itself.
    """
    errors = _inside(value, 1)
    if errors:
        raise InvalidEventError(tuple(errors))
    return CompactJson(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict))


def _inside(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], depth: int) -> list[FieldError]:
    if depth > MAX_DEPTH:
        raise Fault("nested deeper", f"at most {MAX_DEPTH} levels of lists and mappings")
    errors: list[FieldError] = []
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                errors.append(FieldError(part(key), f"a key that is {kind(key)}", "keys that are strings"))
            elif (found := unencodable(key)) is not None:
                errors.append(FieldError(part(key), f"a key with {found}", _ENCODABLE))
            errors += [_below(part(key), error) for error in _of(inner, depth)]
    else:
        for index, inner in enumerate(value):
            errors += [_below(f"[{index}]", error) for error in _of(inner, depth)]
    return errors


def _of(value: object, depth: int) -> list[FieldError]:
    was, expected = "", ""
    if isinstance(value, str):
        found = unencodable(value)
        if found is not None:
            was, expected = f"a string with {found}", _ENCODABLE
    elif isinstance(value, float):
        if not math.isfinite(value):
            was, expected = float.__repr__(value), "a finite number"
    elif isinstance(value, int):
        if value.bit_length() > _ALWAYS_SHORT_BITS and not _has_digits(value):
            was, expected = "an integer of more digits than Python writes", "its digits as a string"
    elif isinstance(value, (Mapping, list, tuple)):
        return _inside(value, depth + 1)
    elif value is not None:
        was, expected = kind(value), "what JSON has: a string, number, boolean, None, list or mapping"
    return [FieldError("", was, expected)] if was else []


def _has_digits(value: int) -> bool:
    try:
        int.__repr__(value)
    except ValueError:
        return False
    return True


def _below(path: str, error: FieldError) -> FieldError:
    separator = "." if error.field and not error.field.startswith("[") else ""
    return FieldError(f"{path}{separator}{error.field}", error.was, error.expected)
