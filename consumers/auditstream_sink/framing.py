"""Frames Kafka record bodies as one Avro object container that ClickHouse reads, without decoding the bodies.

An Avro body has no field tags, so fields can be added around it without changing it. Each record gets its partition
and offset as two varints in front, and eight known bytes behind. The container's schema names these fields first and
last. If a body has trailing bytes, ClickHouse reads them as the last field, and the known bytes are not found there.

Each record is a block of its own (count 1, size, data, sync marker; Avro 1.12 specification, "Object Container
Files"). That costs 20 bytes more than one large block, but a broken record cannot shift the bytes of its neighbour.
"""

import json
import os
from collections.abc import Callable, Generator, Iterable
from functools import lru_cache
from io import BytesIO
from typing import Any

import fastavro

from auditstream_schemas.avro_body import varint
from auditstream_schemas.codec import BODY_ERRORS, parsed_schema
from auditstream_schemas.errors import WireFormatError

SYNC = b"auditstream-sync"
"""The marker between blocks; 16 bytes. It need not be random: every block states its size."""

PARTITION_FIELD = "_partition"
OFFSET_FIELD = "_offset"
END_FIELD = "_end"

END = os.urandom(8)
"""The known bytes behind each body; random for each process, so that no producer can end a record with them."""

_PIECE_BYTES = 1024 * 1024

_SIZES = tuple(varint(number) for number in range(4096))

# The two lowest bytes of an offset's varint, and the rest of it, are computed once and not for each record.
_LOW_BITS = 13
_LOW_MASK = (1 << _LOW_BITS) - 1
_LOW_BYTES = tuple(bytes((number << 1 & 0x7F | 0x80, number >> 6 | 0x80)) for number in range(1 << _LOW_BITS))


@lru_cache(maxsize=4096)
def _high_bytes(number: int) -> bytes:
    # The number is zigzag-encoded already; varint encodes again, so decode here.
    return varint(number >> 1 ^ -(number & 1))


_partition = lru_cache(maxsize=4096)(varint)


def block(partition: int, offset: int, body: bytes) -> bytes:
    """One record as a container block, with partition and offset in front of its own fields."""
    if offset >> _LOW_BITS:
        front = _partition(partition) + _LOW_BYTES[offset & _LOW_MASK] + _high_bytes(offset >> _LOW_BITS)
    else:
        front = _partition(partition) + varint(offset)
    size = len(front) + len(body) + len(END)
    return b"".join((b"\x02", _SIZES[size] if size < 4096 else varint(size), front, body, END, SYNC))


def body_of(framed: bytes) -> bytes:
    """The body within a block."""
    at = 1
    for _varint in ("size", PARTITION_FIELD, OFFSET_FIELD):
        while framed[at] & 0x80:
            at += 1
        at += 1
    return framed[at : -len(END) - len(SYNC)]


def _end_field() -> dict[str, Any]:
    """The last field of a container's schema."""
    return {"name": END_FIELD, "type": {"type": "fixed", "name": "auditstream_end", "size": len(END)}}


def header(writer_schema: dict[str, Any]) -> bytes:
    """The container's head for records of this writer schema."""
    coordinates = [{"name": PARTITION_FIELD, "type": "int"}, {"name": OFFSET_FIELD, "type": "long"}]
    schema = {**writer_schema, "fields": [*coordinates, *writer_schema["fields"], _end_field()]}
    texts = (b"avro.schema", json.dumps(schema).encode(), b"avro.codec", b"null")
    return b"".join((b"Obj\x01", varint(2), *(varint(len(text)) + text for text in texts), varint(0), SYNC))


def container(head: bytes, blocks: Iterable[bytes | memoryview]) -> Generator[bytes, None, None]:
    """A container file in pieces, so that it is not copied in memory as a whole."""
    yield head
    for run in blocks:
        for start in range(0, len(run), _PIECE_BYTES):
            yield bytes(run[start : start + _PIECE_BYTES])


@lru_cache(maxsize=16)
def trailing_bytes_check(writer_schema: str) -> Callable[[bytes], bool]:
    """A function that checks, at half the cost of decoding, that a body is one record with no bytes behind it.

    It appends the known end bytes to the body and reads only their field; all other fields are skipped. A body that
    fails is decoded afterwards for the reason, so a check that is too strict only costs time.
    """
    schema = json.loads(writer_schema)
    try:
        writer = parsed_schema(json.dumps({**schema, "fields": [*schema["fields"], _end_field()]}))
        reader = parsed_schema(json.dumps({**schema, "fields": [_end_field()]}))
    except WireFormatError:
        return lambda _body: False

    def has_no_trailing_bytes(body: bytes) -> bool:
        try:
            record = fastavro.schemaless_reader(BytesIO(body + END), writer, reader)
        except BODY_ERRORS:
            return False
        return isinstance(record, dict) and record[END_FIELD] == END

    return has_no_trailing_bytes
