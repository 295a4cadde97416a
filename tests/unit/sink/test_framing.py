import io
import json
from collections.abc import Iterable

import fastavro
import pytest

from auditstream_schemas.codec import SCHEMA_JSON, encode_body
from auditstream_sink.framing import END, SYNC, block, body_of, container, header
from tests.support.events import make_event


def read_container(pieces: Iterable[bytes]) -> list[dict[str, object]]:
    return list(fastavro.reader(io.BytesIO(b"".join(pieces))))  # type: ignore[arg-type]


def test_a_container_reads_as_the_records_with_their_coordinates_and_the_end_bytes() -> None:
    events = [make_event(number) for number in range(3)]
    head = header(json.loads(SCHEMA_JSON))
    blocks = [block(5, 2**40 + number, encode_body(event)) for number, event in enumerate(events)]
    records = read_container(container(head, blocks))
    assert [(record["_partition"], record["_offset"]) for record in records] == [
        (5, 2**40),
        (5, 2**40 + 1),
        (5, 2**40 + 2),
    ]
    assert [str(record["id"]) for record in records] == [str(event.id) for event in events]
    assert [record["_end"] for record in records] == [END] * 3


def test_a_large_record_is_framed_with_its_size() -> None:
    event = make_event(1, payload={"text": "x" * 300_000})
    [record] = read_container(container(header(json.loads(SCHEMA_JSON)), [block(0, 0, encode_body(event))]))
    assert record["payload"] == event.payload


@pytest.mark.parametrize("trailing", [b"\0", b"\xff", b"anything at all"])
def test_trailing_bytes_are_read_in_place_of_the_end_bytes(trailing: bytes) -> None:
    blocks = [block(0, 0, encode_body(make_event(1)) + trailing)]
    [record] = _first_record(container(header(json.loads(SCHEMA_JSON)), blocks))
    assert record["_end"] != END


def _first_record(pieces: Iterable[bytes]) -> list[dict[str, object]]:
    """The first record alone: fastavro fails on the bytes that are left in its block."""
    return [next(iter(fastavro.reader(io.BytesIO(b"".join(pieces)))))]  # type: ignore[arg-type]


def test_the_sync_marker_has_the_length_that_avro_requires() -> None:
    assert len(SYNC) == 16


@pytest.mark.parametrize("offset", [0, 63, 64, 8191, 8192, 2**40, 2**63 - 1])
@pytest.mark.parametrize("size", [0, 1, 37, 4000, 5000, 900_000])
def test_the_body_can_be_read_from_its_block(offset: int, size: int) -> None:
    body = b"\x80" * size
    assert body_of(block(300, offset, body)) == body
