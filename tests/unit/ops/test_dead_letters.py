from datetime import UTC, datetime
from uuid import uuid4

from confluent_kafka import Message

from auditstream_ops.dead_letters.dead_letter import (
    RESOLUTION,
    DeadLetter,
    Headers,
    Resolution,
    read_dead_letter,
    read_resolution,
    resolution_headers,
)
from auditstream_sink.dead_letters import (
    ERROR,
    REASON,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    SOURCE_TOPIC_ID,
)

TOPIC_ID = str(uuid4())
AT = datetime(2026, 1, 31, 9, 0, 0, 5000, tzinfo=UTC)
OURS: Headers = (
    (REASON, b"payload"),
    (ERROR, "payload: größer".encode()),
    (SOURCE_TOPIC, b"audit.events"),
    (SOURCE_TOPIC_ID, TOPIC_ID.encode()),
    (SOURCE_PARTITION, b"3"),
    (SOURCE_OFFSET, b"17"),
)


def record(headers: Headers, *, value: bytes | None = b"value", key: bytes | None = None) -> Message:
    return Message(
        topic="audit.events.dlq",
        partition=0,
        offset=5,
        key=key,
        value=value,
        headers=list(headers),
        timestamp=(1, int(AT.timestamp() * 1000)),
    )


def dead_letter(headers: Headers = OURS, *, value: bytes | None = b"value") -> DeadLetter:
    parsed = read_dead_letter(record(headers, value=value), {})
    assert parsed is not None
    return parsed


def test_a_dead_letter_has_the_record_and_its_source() -> None:
    parsed = dead_letter((("trace", None), *OURS))
    assert (parsed.name, parsed.coordinates) == ("audit.events[3]@17", (TOPIC_ID, 3, 17))
    assert (parsed.reason, parsed.error, parsed.written_at) == ("payload", "payload: größer", AT)
    assert (parsed.key, parsed.content, parsed.value) == (None, b"value", b"value")
    assert parsed.headers == (("trace", None), *OURS)
    assert parsed.state == "open"


def test_a_record_without_a_value_is_not_an_empty_record() -> None:
    assert (dead_letter(value=None).content, dead_letter(value=None).value) == (None, b"")
    assert dead_letter(value=b"").content == b""


def test_headers_of_the_record_do_not_replace_ours() -> None:
    forged = ((REASON, b"future"), (SOURCE_OFFSET, b"1"), (RESOLUTION, b"dropped"))
    parsed = dead_letter((*forged, *OURS))
    assert (parsed.reason, parsed.offset) == ("payload", 17)
    assert read_resolution(record((*forged, *OURS))) is None


def test_a_resolution_is_read_as_it_was_written() -> None:
    resolutions = [
        Resolution(state="replayed", at=AT, by="ada@host", why="", edited=False, partition=2, offset=41),
        Resolution(state="replayed", at=AT, by="ada@host", why="a comma, größer", edited=True, partition=0, offset=0),
        Resolution(state="dropped", at=AT, by="ada@host", why="not ours", edited=False, partition=None, offset=None),
    ]
    for resolution in resolutions:
        resolving = record(tuple(resolution_headers(dead_letter(), resolution)), value=None)
        assert read_resolution(resolving) == ((TOPIC_ID, 3, 17), resolution)
        assert read_dead_letter(resolving, {}) is None
        resolved = read_dead_letter(record(OURS), {dead_letter().coordinates: resolution})
        assert resolved is not None
        assert (resolved.resolution, resolved.state) == (resolution, resolution.state)


def test_another_record_is_neither_a_dead_letter_nor_a_resolution() -> None:
    for headers in (
        (),
        OURS[:-1],
        (*OURS[:-1], (SOURCE_OFFSET, b"seventeen")),
        (*OURS[:-1], (SOURCE_OFFSET, None)),
        ((RESOLUTION, b"burnt"), *OURS[1:]),
        ((RESOLUTION, b"dropped"),),
    ):
        assert read_dead_letter(record(headers), {}) is None
        assert read_resolution(record(headers)) is None
