"""Python values as compact JSON text.

Integers are written exactly, floats as their shortest `repr`, strings unescaped where JSON allows. A value
that JSON lacks (a datetime, a Decimal, bytes, a set, NaN) is refused with its path. The caller converts it.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from auditstream_schemas.errors import FieldError, InvalidEventError
from auditstream_schemas.faults import Fault, kind, path_part
from auditstream_schemas.json_text import ENCODABLE, MAX_DEPTH, CompactJson, unencodable


def dump_object(value: Mapping[str, Any]) -> CompactJson:
    """Write a mapping as compact JSON.

    Raises:
        InvalidEventError: JSON lacks some of its values; names their paths within the mapping.
        Fault: It is nested deeper than `MAX_DEPTH`, or contains itself.
    """
    if errors := _container_errors(value, 1):
        raise InvalidEventError(tuple(errors))
    return CompactJson(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict))


def _container_errors(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], depth: int) -> list[FieldError]:
    if depth > MAX_DEPTH:
        raise Fault("nested deeper", f"at most {MAX_DEPTH} levels of lists and mappings")
    errors: list[FieldError] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                errors.append(FieldError(path_part(key), f"a key that is {kind(key)}", "keys that are strings"))
            elif (character := unencodable(key)) is not None:
                errors.append(FieldError(path_part(key), f"a key with {character}", ENCODABLE))
            errors += [_prefixed(path_part(key), error) for error in _errors(item, depth)]
    else:
        for index, item in enumerate(value):
            errors += [_prefixed(f"[{index}]", error) for error in _errors(item, depth)]
    return errors


def _errors(value: object, depth: int) -> list[FieldError]:
    was, expected = "", ""
    if isinstance(value, str):
        if (character := unencodable(value)) is not None:
            was, expected = f"a string with {character}", ENCODABLE
    elif isinstance(value, float):
        if not math.isfinite(value):
            was, expected = float.__repr__(value), "a finite number"
    elif isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError:
            was, expected = "an integer with more digits than Python converts", "its digits as a string"
    elif isinstance(value, (Mapping, list, tuple)):
        return _container_errors(value, depth + 1)
    elif value is not None:
        was, expected = kind(value), "a JSON value: a string, number, boolean, None, list or mapping"
    return [FieldError("", was, expected)] if was else []


def _prefixed(path: str, error: FieldError) -> FieldError:
    separator = "." if error.field and not error.field.startswith("[") else ""
    return FieldError(f"{path}{separator}{error.field}", error.was, error.expected)
