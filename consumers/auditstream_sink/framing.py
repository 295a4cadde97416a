"""Kafka record bodies, framed as one Avro object container that ClickHouse reads, without decoding any.

Avro bodies carry no field tags, so fields can be put around one without touching it: each record gets its
partition and offset as two varints in front, and eight known bytes behind, and the container's schema names
them first and last. Where a body is longer than its record, the bytes behind it are read as the last
field, and are not the known ones: that is how trailing bytes are found without decoding. One block a
record (count 1, size, data, sync marker; Avro 1.12 specification, "Object Container Files") costs 20
bytes more than one large block, but keeps a broken record from shifting into its neighbour.
"""

import json
import os
from collections.abc import Generator, Iterable
from functools import lru_cache
from typing import Any

from auditstream_schemas.avro_body import varint

SYNC = b"auditstream-sync"
"""The marker between blocks; 16 bytes. It need not be random: every block states its size."""

PARTITION_FIELD = "_partition"
OFFSET_FIELD = "_offset"
END_FIELD = "_end"

END = os.urandom(8)
"""What stands behind each body; of this process alone, so that no record can end in it on purpose."""


_PIECE_BYTES = 1024 * 1024

_SIZES = tuple(varint(number) for number in range(4096))

# An offset's two lowest bytes and what is above them, made once and not for each record.
_LOW_BITS = 13
_LOW_MASK = (1 << _LOW_BITS) - 1
_LOW = tuple(bytes((number << 1 & 0x7F | 0x80, number >> 6 | 0x80)) for number in range(1 << _LOW_BITS))


@lru_cache(maxsize=4096)
def _high(number: int) -> bytes:
    # The zigzag is in the low bits already: undone here, for varint does it again.
    return varint(number >> 1 ^ -(number & 1))


_partition = lru_cache(maxsize=4096)(varint)


def block(partition: int, offset: int, body: bytes) -> bytes:
    """One record as a container block, its Kafka coordinates in front of its own fields."""
    if offset >> _LOW_BITS:
        front = _partition(partition) + _LOW[offset & _LOW_MASK] + _high(offset >> _LOW_BITS)
    else:
        front = _partition(partition) + varint(offset)
    size = len(front) + len(body) + len(END)
    return b"".join((b"\x02", _SIZES[size] if size < 4096 else varint(size), front, body, END, SYNC))


def body_of(framed: bytes) -> bytes:
    """The body that a block was made from."""
    at = 1
    for _varint in ("size", PARTITION_FIELD, OFFSET_FIELD):
        while framed[at] & 0x80:
            at += 1
        at += 1
    return framed[at : -len(END) - len(SYNC)]


def end_field() -> dict[str, Any]:
    """The field that a container's schema ends with."""
    return {"name": END_FIELD, "type": {"type": "fixed", "name": "auditstream_end", "size": len(END)}}


def header(writer_schema: dict[str, Any]) -> bytes:
    """The container's head for records of this writer schema."""
    schema = {
        **writer_schema,
        "fields": [
            {"name": PARTITION_FIELD, "type": "int"},
            {"name": OFFSET_FIELD, "type": "long"},
            *writer_schema["fields"],
            end_field(),
        ],
    }
    text = json.dumps(schema).encode()
    return b"".join(
        (
            b"Obj\x01",
            varint(2),
            *(_text(b"avro.schema"), _text(text)),
            *(_text(b"avro.codec"), _text(b"null")),
            varint(0),
            SYNC,
        )
    )


def container(head: bytes, blocks: Iterable[bytes | memoryview]) -> Generator[bytes, None, None]:
    """A container file in pieces, so that it need not lie in memory a second time."""
    yield head
    for run in blocks:
        for start in range(0, len(run), _PIECE_BYTES):
            yield bytes(run[start : start + _PIECE_BYTES])


def _text(text: bytes) -> bytes:
    return varint(len(text)) + text
