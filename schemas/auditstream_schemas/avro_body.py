"""The values of an Avro body, each appended to a list of byte strings.

Written by hand, because encoding is the SDK's hot path and fastavro interprets the schema for every record.
The tests compare the bytes with those of fastavro and of Apache's avro package.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

_T = TypeVar("_T")

_NULL, _NOT_NULL = b"\x00", b"\x02"
_END_OF_MAP = b"\x00"


def varint(number: int) -> bytes:
    """Encode a 64-bit integer as Avro does: zigzag, then seven bits a byte, the lowest first."""
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


_LENGTHS = tuple(varint(length) for length in range(1024))


def put_string(string: str, pieces: list[bytes]) -> None:
    """Append a string: its length in bytes, then UTF-8."""
    encoded = string.encode()
    length = len(encoded)
    pieces.append(_LENGTHS[length] if length < 1024 else varint(length))
    pieces.append(encoded)


def put_map(strings: Mapping[str, str], pieces: list[bytes]) -> None:
    """Append a map of strings as one block, in the mapping's order."""
    if length := len(strings):
        pieces.append(_LENGTHS[length] if length < 1024 else varint(length))
        for key, value in strings.items():
            put_string(key, pieces)
            put_string(value, pieces)
    pieces.append(_END_OF_MAP)


def put_optional(value: _T | None, put: Callable[[_T, list[bytes]], None], pieces: list[bytes]) -> None:
    """Append a union of null and a type: the branch, then the value if there is one."""
    if value is None:
        pieces.append(_NULL)
    else:
        pieces.append(_NOT_NULL)
        put(value, pieces)
