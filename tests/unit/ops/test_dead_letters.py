from datetime import UTC, datetime
from uuid import uuid4

from confluent_kafka import Message

from auditstream_ops.dead_letters.dead_letter import (
    MARKER,
    DeadLetter,
    DeadLetterPosition,
    Headers,
    Resolution,
    read_letter,
    read_marker,
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


def letter(headers: Headers = OURS, *, value: bytes | None = b"value") -> DeadLetter:
    found = read_letter(record(headers, value=value), {})
    assert found is not None
    return found


def test_a_letter_keeps_what_came_and_says_where_from() -> None:
    found = letter((("trace", None), *OURS))
    assert (found.name, found.place) == ("audit.events[3]@17", DeadLetterPosition(TOPIC_ID, 3, 17))
    assert (found.reason, found.error, found.written_at) == ("payload", "payload: größer", AT)
    assert (found.key, found.content, found.value) == (None, b"value", b"value")
    assert found.headers == (("trace", None), *OURS)
    assert found.state == "open"


def test_a_record_without_a_value_is_not_an_empty_one() -> None:
    assert (letter(value=None).content, letter(value=None).value) == (None, b"")
    assert letter(value=b"").content == b""


def test_headers_of_the_record_do_not_stand_for_ours() -> None:
    forged = ((REASON, b"future"), (SOURCE_OFFSET, b"1"), (MARKER, b"dropped"))
    found = letter((*forged, *OURS))
    assert (found.reason, found.offset) == ("payload", 17)
    assert read_marker(record((*forged, *OURS))) is None


def test_a_marker_comes_back_as_it_was_written() -> None:
    markers = [
        Resolution(kind="replayed", at=AT, by="ada@host", why="", edited=False, partition=2, offset=41),
        Resolution(kind="replayed", at=AT, by="ada@host", why="a comma, größer", edited=True, partition=0, offset=0),
        Resolution(kind="dropped", at=AT, by="ada@host", why="not ours", edited=False, partition=None, offset=None),
    ]
    for marker in markers:
        closing = record(resolution_headers(letter(), marker), value=None)
        assert read_marker(closing) == (DeadLetterPosition(TOPIC_ID, 3, 17), marker)
        assert read_letter(closing, {}) is None
        closed = read_letter(record(OURS), {letter().place: marker})
        assert closed is not None
        assert (closed.marker, closed.state) == (marker, marker.kind)


def test_what_is_neither_is_neither() -> None:
    for headers in (
        (),
        OURS[:-1],
        (*OURS[:-1], (SOURCE_OFFSET, b"seventeen")),
        (*OURS[:-1], (SOURCE_OFFSET, None)),
        ((MARKER, b"burnt"), *OURS[1:]),
        ((MARKER, b"dropped"),),
    ):
        assert read_letter(record(headers), {}) is None
        assert read_marker(record(headers)) is None
