"""An event as the body of an Avro record, field by field as audit_event.avsc lists them.

Written out by hand because this is the SDK's hot path, and fastavro has to find out at run time what this
module knows. The tests hold it to fastavro's and Apache's own bytes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from auditstream_schemas.event import AuditEvent, Entity

_ABSENT, _PRESENT = b"\x00", b"\x02"
_FALSE, _TRUE = b"\x00", b"\x01"
_END_OF_MAP = b"\x00"
_ID_LENGTH = b"\x48"


def varint(number: int) -> bytes:
    """Write an integer of 64 bits as Avro does: zigzag, then seven bits a byte, the lowest first."""
    left = (number << 1) ^ (number >> 63)
    written = bytearray()
    while left > 0x7F:
        written.append(left & 0x7F | 0x80)
        left >>= 7
    written.append(left)
    return bytes(written)


_LENGTHS = tuple(varint(length) for length in range(1024))


def encode_body(event: "AuditEvent") -> bytes:
    """Encode an event as an Avro body, without the header of the wire format."""
    return b"".join(_pieces(event))


def body_size(event: "AuditEvent") -> int:
    """Bytes of the Avro body of an event."""
    return sum(map(len, _pieces(event)))


def _pieces(event: "AuditEvent") -> list[bytes]:
    pieces = [_ID_LENGTH, str(event.id).encode(), varint(event.occurred_at)]
    _string(event.action, pieces)
    pieces.append(varint(event.version))
    _entity(event.actor, pieces)
    _entity(event.target, pieces)
    _string(event.payload, pieces)
    _map(event.metadata, pieces)
    if event.scope is None:
        pieces.append(_ABSENT)
    else:
        pieces.append(_PRESENT)
        _entity(event.scope, pieces)
    pieces.append(_TRUE if event.success else _FALSE)
    if event.request is None:
        pieces.append(_ABSENT)
    else:
        pieces.append(_PRESENT)
        _string(event.request.id, pieces)
        _map(event.request.attributes, pieces)
    return pieces


def _entity(entity: "Entity", pieces: list[bytes]) -> None:
    _string(entity.id, pieces)
    _string(entity.type, pieces)
    if entity.name is None:
        pieces.append(_ABSENT)
    else:
        pieces.append(_PRESENT)
        _string(entity.name, pieces)
    _map(entity.attributes, pieces)


def _map(strings: Mapping[str, str], pieces: list[bytes]) -> None:
    if strings:
        pieces.append(varint(len(strings)))
        for key, value in strings.items():
            _string(key, pieces)
            _string(value, pieces)
    pieces.append(_END_OF_MAP)


def _string(string: str, pieces: list[bytes]) -> None:
    encoded = string.encode()
    length = len(encoded)
    pieces.append(_LENGTHS[length] if length < 1024 else varint(length))
    pieces.append(encoded)
