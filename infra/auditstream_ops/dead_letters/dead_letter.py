"""Reading the dead-letter topic: the letters, and the markers that say what became of them.

The topic is append-only and the only store of letters. A letter that was replayed or dropped is closed by a
marker: a record without key and value, on the letter's own partition (so it never outlives the marker), whose
headers name the letter and say what was done, by whom and why.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern
from types import TracebackType
from typing import Literal, NamedTuple, Self, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from auditstream_schemas.errors import OperationError
from auditstream_sink import DeadLetterSettings
from auditstream_sink.batch import record_headers
from auditstream_sink.dead_letters import (
    ERROR,
    OMITTED,
    REASON,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    SOURCE_TOPIC_ID,
)

HEADER_PREFIX = "auditstream."
"""Of every header that is ours, on letters, markers and replayed records."""

MARKER = "auditstream.marker"
MARKER_BY = "auditstream.marker.by"
MARKER_WHY = "auditstream.marker.why"
MARKER_EDITED = "auditstream.marker.edited"
MARKER_PARTITION = "auditstream.marker.partition"
MARKER_OFFSET = "auditstream.marker.offset"

Headers = tuple[tuple[str, bytes | None], ...]

_BROKER_SECONDS = 10
# A letter may hold a megabyte: what is in memory at once stays below these.
_CONSUME_AT_MOST = 500
_FETCH_AHEAD_KBYTES = 16 * 1024


class DeadLetterPosition(NamedTuple):
    """Where a record lay that became a letter: identifies the letter.

    Attributes:
        topic_id: Id of the topic; differs when it was created anew under the same name.
        partition: Kafka partition.
        offset: Kafka offset.
    """

    topic_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What became of a letter.

    Attributes:
        kind: Sent again, or closed as it is.
        at: When, UTC.
        by: Who, as ``user@host``.
        why: The reason given; empty if none was.
        edited: An edited event was sent in its stead.
        partition: Where on its topic the record lies now; None if it was dropped.
        offset: Likewise.
    """

    kind: Literal["replayed", "dropped"]
    at: datetime
    by: str
    why: str
    edited: bool
    partition: int | None
    offset: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A refused record.

    Attributes:
        reason: A short word to filter by.
        error: What was wrong.
        topic: Where the record came from.
        topic_id: Id of that topic; differs when it was created anew under the same name.
        partition: Kafka partition of the record.
        offset: Kafka offset of the record.
        written_at: When the sink wrote the letter, UTC.
        key: The record's key, as it came.
        content: The record's bytes, as they came; None if it had no value.
        headers: The letter's headers: the record's own, then ours.
        dead_letter_partition: Partition of the dead-letter topic that holds the letter.
        marker: What became of it; None while it is open.
    """

    reason: str
    error: str
    topic: str
    topic_id: str
    partition: int
    offset: int
    written_at: datetime
    key: bytes | None
    content: bytes | None
    headers: Headers
    dead_letter_partition: int
    marker: Resolution | None

    @property
    def value(self) -> bytes:
        """The record's bytes; empty if it had no value."""
        return self.content or b""

    @property
    def is_omitted(self) -> bool:
        """Whether the record itself was too large to be kept."""
        return self.content is None and any(name == OMITTED for name, _ in self.headers)

    @property
    def place(self) -> DeadLetterPosition:
        """What identifies the letter."""
        return DeadLetterPosition(self.topic_id, self.partition, self.offset)

    @property
    def name(self) -> str:
        """What people call it: ``TOPIC[PARTITION]@OFFSET``."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def state(self) -> Literal["open", "replayed", "dropped"]:
        """Whether something was done about it."""
        return "open" if self.marker is None else self.marker.kind


class DeadLetterReader:
    """The dead-letter topic as it is when this is made; what is written later is not seen.

    Letters are streamed. In memory stay the places met, and the markers. Not safe to share between threads.
    """

    def __init__(self, settings: DeadLetterSettings) -> None:
        """Read the markers; blocks on the broker for as long as the topic takes to read once.

        Raises:
            OperationError: The topic or the broker is not there.
        """
        self._topic = settings.dead_letters
        self._servers = settings.kafka_bootstrap_servers
        self._consumer = Consumer(
            {
                **settings.librdkafka_client("dlq"),
                "group.id": "auditstream-dlq-reader",  # required by the client; nothing is committed
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": _FETCH_AHEAD_KBYTES,
                # What is there is read; nothing is waited for.
                "fetch.wait.max.ms": 10,
            }
        )
        self._markers: dict[DeadLetterPosition, Resolution] = {}
        # One past the last record of each partition. Watermarks would be quicker to ask for, but the local
        # stack's broker gives some that lag behind.
        self._ends: dict[int, int] = {}
        try:
            self._partitions = self._partitions_of_topic()
            for message in self._messages():
                self._ends[message.partition() or 0] = (message.offset() or 0) + 1
                found = read_marker(message)
                if found is not None:
                    self._markers[found[0]] = found[1]
        except BaseException:
            self._consumer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def letters(self) -> Iterator[DeadLetter]:
        """All letters, oldest first; ends an earlier iteration that is not at its end.

        A sink that dies between writing letters and writing its books writes them again: the second of the
        same place is left out.

        Raises:
            OperationError: The broker is gone.
        """
        seen: dict[tuple[str, int], set[int]] = {}
        for message in self._messages(self._ends):
            letter = read_letter(message, self._markers)
            if letter is None:
                continue
            offsets = seen.setdefault((intern(letter.topic_id), letter.partition), set())
            if letter.offset not in offsets:
                offsets.add(letter.offset)
                yield letter

    def _partitions_of_topic(self) -> list[int]:
        try:
            found = self._consumer.list_topics(self._topic, timeout=_BROKER_SECONDS).topics[self._topic]
        except KafkaException as error:
            raise self._away(error) from error
        if found.error is not None:
            raise OperationError(f"topic {self._topic}: {found.error.str()}; run `auditstream topics`")
        return list(found.partitions)

    def _messages(self, ends: Mapping[int, int] | None = None) -> Iterator[Message]:
        """Everything on the topic, up to these offsets or to its end."""
        unread = set(self._partitions if ends is None else ends)
        try:
            self._consumer.assign([TopicPartition(self._topic, partition, 0) for partition in unread])
            silent_until = time.monotonic() + _BROKER_SECONDS
            while unread:
                for message in self._consumer.consume(_CONSUME_AT_MOST, 0.1):
                    silent_until = time.monotonic() + _BROKER_SECONDS
                    error, partition, offset = message.error(), message.partition(), message.offset()
                    if partition not in unread or offset is None:
                        continue
                    if error is None:
                        if ends is None or offset < ends[partition]:
                            yield message
                        if ends is not None and offset + 1 >= ends[partition]:
                            unread.discard(partition)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        unread.discard(partition)
                    else:
                        raise OperationError(f"topic {self._topic}: {error.str()}")
                if time.monotonic() > silent_until:
                    raise OperationError(f"topic {self._topic}: no answer from {self._servers}")
        except KafkaException as error:
            raise self._away(error) from error

    def _away(self, error: KafkaException) -> OperationError:
        return OperationError(f"no broker at {self._servers}: {error.args[0].str()}")


def read_letters(settings: DeadLetterSettings) -> Iterator[DeadLetter]:
    """All letters from the topic's start to its end; blocks on the broker.

    Raises:
        OperationError: The topic or the broker is not there.
    """
    with DeadLetterReader(settings) as reader:
        yield from reader.letters()


def read_letter(message: Message, markers: dict[DeadLetterPosition, Resolution]) -> DeadLetter | None:
    """The letter that a record of the topic is, with its marker; None if it is none."""
    headers = _headers(message)
    # Ours come last, and win: a record may carry headers of the same name.
    found = dict(headers)
    place = _place(found)
    if REASON not in found or place is None:
        return None
    key, value = message.key(), message.value()
    return DeadLetter(
        reason=_text(found, REASON),
        error=_text(found, ERROR),
        topic=_text(found, SOURCE_TOPIC),
        topic_id=place.topic_id,
        partition=place.partition,
        offset=place.offset,
        written_at=_written_at(message),
        key=key,
        content=value,
        headers=headers,
        dead_letter_partition=message.partition() or 0,
        marker=markers.get(place),
    )


def read_marker(message: Message) -> tuple[DeadLetterPosition, Resolution] | None:
    """The marker that a record of the topic is, with its letter's place; None if it is none."""
    found = dict(_headers(message))
    place, kind = _place(found), _text(found, MARKER)
    # Letters have a reason, markers have none: no producer closes a letter by a header of its own.
    if REASON in found or place is None or kind not in {"replayed", "dropped"}:
        return None
    marker = Resolution(
        kind=cast("Literal['replayed', 'dropped']", intern(kind)),
        at=_written_at(message),
        by=intern(_text(found, MARKER_BY)),
        why=intern(_text(found, MARKER_WHY)),
        edited=MARKER_EDITED in found,
        partition=_number(found, MARKER_PARTITION),
        offset=_number(found, MARKER_OFFSET),
    )
    return place, marker


def resolution_headers(letter: DeadLetter, marker: Resolution) -> Headers:
    """The headers of the record that closes a letter; ``marker.at`` is the record's own time."""
    coordinates = ((MARKER_PARTITION, marker.partition), (MARKER_OFFSET, marker.offset))
    return (
        (MARKER, marker.kind.encode()),
        (MARKER_BY, marker.by.encode()),
        *(((MARKER_WHY, marker.why.encode()),) if marker.why else ()),
        *(((MARKER_EDITED, b"true"),) if marker.edited else ()),
        *((name, str(number).encode()) for name, number in coordinates if number is not None),
        (SOURCE_TOPIC, letter.topic.encode()),
        (SOURCE_TOPIC_ID, letter.topic_id.encode()),
        (SOURCE_PARTITION, str(letter.partition).encode()),
        (SOURCE_OFFSET, str(letter.offset).encode()),
    )


def _headers(message: Message) -> Headers:
    return tuple(record_headers(message) or ())


def _place(headers: dict[str, bytes | None]) -> DeadLetterPosition | None:
    partition, offset = _number(headers, SOURCE_PARTITION), _number(headers, SOURCE_OFFSET)
    if partition is None or offset is None:
        return None
    return DeadLetterPosition(intern(_text(headers, SOURCE_TOPIC_ID)), partition, offset)


def _text(headers: dict[str, bytes | None], name: str) -> str:
    return (headers.get(name) or b"").decode("utf-8", "replace")


def _number(headers: dict[str, bytes | None], name: str) -> int | None:
    text = _text(headers, name)
    return int(text) if text.isascii() and text.isdigit() else None


def _written_at(message: Message) -> datetime:
    return datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
