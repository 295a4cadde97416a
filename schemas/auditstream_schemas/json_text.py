r"""JSON text of payloads, preserved and never re-written from parsed values.

Python's own JSON scanner checks a payload; then only the white space between its tokens is removed.
``1.10``, ``1E5``, integers of any length, ``\u00e9`` escapes, the order of keys and repeated keys stay.

Refused is JSON that ClickHouse or UTF-8 cannot represent: NaN and Infinity, numbers with a fraction or
exponent beyond the range of a double, NUL and lone surrogates (raw or escaped), and nesting deeper than
`MAX_DEPTH`.
"""

import json
import math
import re
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from auditstream_schemas.faults import Fault, JsonNumber, shown

MAX_DEPTH = 200
"""Deepest nesting of a payload, its own braces counted.

Every reader can go deeper: jsonschema-rs reports errors down to about 255 levels, ClickHouse reads 1023, and
Python's scanner shares the interpreter's recursion limit (1000) with the frames of its caller.
"""
ENCODABLE = "only characters that UTF-8 and ClickHouse can represent"
"""The expectation in a `Fault` about a character that cannot be encoded."""

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKENS = re.compile(rf'{_STRING}|[^ \t\n\r"]+')
_BRACKETS = re.compile(rf"{_STRING}|(?P<open>[\[{{])|(?P<close>[\]}}])")
_PLAIN_KEY = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_SPACE = re.compile(r"[ \t\n\r]*")
_HAS_SPACE = re.compile(r"[ \t\n\r]")
_WHITE = " \t\n\r"
_ESCAPES = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<surrogate>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|(?P<nul>u0000)"
    r"|.)"
)
_ESCAPED = {"nul": "an escaped NUL", "surrogate": "an escaped lone surrogate"}
_KINDS = {"{": "a JSON object", "[": "a JSON array", '"': "a JSON string", "t": "true", "f": "false", "n": "null"}


class CompactJson(str):
    """JSON text of one object, checked and without white space between its tokens."""

    __slots__ = ()


def compact_object(text: str) -> CompactJson:
    """Check the JSON text of one object and remove the white space between its tokens.

    Raises:
        Fault: It is not the JSON of one object, or contains a value that an event cannot have.
    """
    start = _skip(text, 0)
    if start == len(text):
        raise Fault("empty", "a JSON object")
    _, end = _scan(text, start, _CHECKER, many=_many_brackets(text))
    _end(text, end)
    return _compacted(text[start:end])


def members(text: str, raw: str) -> Iterator[tuple[str, Any]]:
    """Yield the key and value of each member of a JSON object, in order and including repeated keys.

    The value of the key ``raw`` is a `CompactJson`. Other values are parsed: strings, booleans, None,
    integers, lists and dicts; a number that is not an integer of at most 19 digits is a `JsonNumber`. A
    refused value is replaced by the `Fault` that gives the reason.

    Raises:
        Fault: The text is not the JSON of one object.
    """
    position = _skip(text, 0)
    if not text.startswith("{", position):
        raise Fault(_kind(text, position), "one JSON object with the fields of an event")
    position = _skip(text, position + 1)
    if not text.startswith("}", position):
        position -= 1
        many = _many_brackets(text)
        while True:
            key, position = _key(text, position + 1)
            value, position = _member(text, position, raw=key == raw, many=many)
            yield key, value
            position = _skip(text, position)
            if not text.startswith(",", position):
                break
        if not text.startswith("}", position):
            raise _malformed(text, position, "a comma or a closing brace")
    _end(text, position + 1)


def unencodable(text: str) -> str | None:
    """Name the character of a string that an event cannot have; None if there is none."""
    if "\0" in text:
        return "a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "a lone surrogate"
    return None


def _key(text: str, position: int) -> tuple[str, int]:
    if match := _PLAIN_KEY.match(text, position):
        return match[1], match.end()
    position = _skip(text, position)
    if not text.startswith('"', position):
        raise _malformed(text, position, "a key in double quotes")
    try:
        key, position = scanstring(text, position + 1, True)  # noqa: FBT003 (takes no keywords)
    except json.JSONDecodeError as error:
        raise _invalid(error) from None
    position = _skip(text, position)
    if not text.startswith(":", position):
        raise _malformed(text, position, "a colon after the key")
    return key, _skip(text, position + 1)


def _member(text: str, start: int, *, raw: bool, many: bool) -> tuple[Any, int]:
    try:
        value, end = _scan(text, start, _CHECKER if raw else _READER, many=many)
        return _compacted(text[start:end]) if raw else value, end
    except _Malformed:
        raise
    except Fault as fault:  # The value is valid JSON, so it has an end.
        return fault, _walk(text, start)[1] if text[start] in '[{"' else _ANY.raw_decode(text, start)[1]


def _many_brackets(text: str) -> bool:
    """Whether the text has enough brackets to be nested too deep."""
    return text.count("[") + text.count("{") > MAX_DEPTH


def _scan(text: str, start: int, decoder: json.JSONDecoder, *, many: bool) -> tuple[Any, int]:
    if many and _walk(text, start)[0] > MAX_DEPTH:
        raise Fault("JSON nested deeper", f"at most {MAX_DEPTH} levels of arrays and objects")
    try:
        return decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _invalid(error) from None


def _compacted(text: str) -> CompactJson:
    if not text.startswith("{"):
        raise Fault(_kind(text, 0), "a JSON object")
    character = unencodable(text)
    if character is None and "\\u" in text:
        character = next((_ESCAPED[escape.lastgroup] for escape in _ESCAPES.finditer(text) if escape.lastgroup), None)
    if character:
        raise Fault(f"JSON with {character}", ENCODABLE)
    return CompactJson("".join(_TOKENS.findall(text)) if _HAS_SPACE.search(text) else text)


def _walk(text: str, start: int) -> tuple[int, int]:
    """Depth and end of the value that starts here, measured without recursion."""
    depth = deepest = 0
    for bracket in _BRACKETS.finditer(text, start):
        if bracket.lastgroup == "open":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket.lastgroup == "close":
            depth -= 1
        if depth <= 0:
            return deepest, bracket.end()
    return deepest, len(text)


def _finite(text: str) -> None:
    if math.isinf(float(text)):
        raise Fault("JSON with a number beyond the range of a double", "numbers up to 1.7e308, or integers")


def _constant(text: str) -> None:
    raise Fault(f"JSON with {text}", "JSON numbers; NaN and Infinity are none")


def _integer(text: str) -> int | JsonNumber:
    return int(text) if len(text) <= 19 else JsonNumber(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise Fault(f"an object with the key {shown(repeated)} twice", "each key once")
    return members


# Numbers of a payload are checked, not converted: converting is slow, and fails on integers of 4300 digits.
_CHECKER = json.JSONDecoder(parse_int=str, parse_float=_finite, parse_constant=_constant)
_READER = json.JSONDecoder(
    parse_int=_integer, parse_float=JsonNumber, parse_constant=JsonNumber, object_pairs_hook=_unique
)
_ANY = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


def _skip(text: str, position: int) -> int:
    """Position of the next character that is not white space."""
    match = _SPACE.match(text, position) if text[position : position + 1] in _WHITE else None
    return match.end() if match else position


def _end(text: str, position: int) -> None:
    if (position := _skip(text, position)) != len(text):
        raise _malformed(text, position, "one JSON object and nothing after it")


def _malformed(text: str, position: int, expected: str) -> "_Malformed":
    was = shown(text[position]) if position < len(text) else "the end"
    return _Malformed(f"invalid JSON: {was} at character {position + 1}", expected)


def _invalid(error: json.JSONDecodeError) -> "_Malformed":
    return _Malformed(f"invalid JSON: {error.msg} at character {error.pos + 1}", "valid JSON")


def _kind(text: str, position: int) -> str:
    first = text[position : position + 1]
    if not first:
        return "empty"
    if first in "-0123456789":
        return "a JSON number"
    return _KINDS.get(first) or f"text that starts with {shown(first)}"


class _Malformed(Fault):
    """The text is not JSON from this position on, so its other members cannot be read."""
