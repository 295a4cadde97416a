"""Reads the dead-letter topic: the dead letters, and their resolution records.

The topic is append-only and the only store of dead letters. Replaying or dropping a dead letter writes a resolution
record: a record without key and value, whose headers name the dead letter, the action, the operator and the reason.
It is on the partition of its dead letter, so that the dead letter never outlives it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern
from typing import Literal, cast

from confluent_kafka import Message

from auditstream_ops.topic_consumer import TopicConsumer
from auditstream_sink import (
    ERROR,
    OMITTED,
    REASON,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    SOURCE_TOPIC_ID,
    DeadLetterSettings,
    record_headers,
)

HEADER_PREFIX = "auditstream."
"""Prefix of our headers, on dead letters, resolution records and replayed records."""

RESOLUTION = "auditstream.resolution"
RESOLUTION_BY = "auditstream.resolution.by"
RESOLUTION_WHY = "auditstream.resolution.why"
RESOLUTION_EDITED = "auditstream.resolution.edited"
RESOLUTION_PARTITION = "auditstream.resolution.partition"
RESOLUTION_OFFSET = "auditstream.resolution.offset"

Headers = tuple[tuple[str, bytes | None], ...]
SourceCoordinates = tuple[str, int, int]
"""Topic id, partition and offset of the refused record: identifies the dead letter."""

# A dead letter may have a megabyte, so the client fetches few of them in advance.
_PREFETCH_KBYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """How a dead letter was resolved: when (UTC), by which operator (``user@host``), and why.

    Attributes:
        edited: Whether an edited event was sent instead of the record.
        partition: Partition of the replayed record on its topic; None if the dead letter was dropped.
        offset: Offset of the replayed record; None if the dead letter was dropped.
    """

    state: Literal["replayed", "dropped"]
    at: datetime
    by: str
    why: str = ""
    edited: bool = False
    partition: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A refused record, with the topic, topic id, partition and offset that it came from.

    Attributes:
        reason: A short word to filter by.
        error: A sentence: the fault of the record.
        written_at: When the sink wrote the dead letter, UTC.
        key: The record's key, unchanged.
        content: The record's bytes, unchanged; None if it had no value.
        headers: The record's own headers, then ours.
        dead_letter_partition: Partition of the dead-letter topic.
        resolution: How it was resolved; None while it is open.
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
    resolution: Resolution | None

    @property
    def value(self) -> bytes:
        """The record's bytes; empty if it had no value."""
        return self.content or b""

    @property
    def is_omitted(self) -> bool:
        """Whether the record itself was too large to be kept."""
        return self.content is None and any(name == OMITTED for name, _ in self.headers)

    @property
    def coordinates(self) -> SourceCoordinates:
        """Identifies the dead letter."""
        return self.topic_id, self.partition, self.offset

    @property
    def name(self) -> str:
        """The name in commands: ``TOPIC[PARTITION]@OFFSET``."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def state(self) -> Literal["open", "replayed", "dropped"]:
        """Whether it is open, or how it was resolved."""
        return "open" if self.resolution is None else self.resolution.state


class DeadLetterReader(TopicConsumer):
    """The dead-letter topic up to the moment of construction; later records are not read.

    Dead letters are streamed. Only their coordinates and the resolutions stay in memory.
    """

    def __init__(self, settings: DeadLetterSettings) -> None:
        """Read the resolution records. Blocks on the broker until the topic has been read once.

        Raises:
            OperationError: The topic does not exist, or the broker is not reachable.
        """
        super().__init__(
            settings,
            settings.dead_letters,
            client="dlq",
            group_id="auditstream-dlq-reader",  # required by the client; nothing is committed
            auto_offset_reset="earliest",
            queued_max_messages_kbytes=_PREFETCH_KBYTES,
            # Only records that the topic already has are read, so there is nothing to wait for.
            fetch_wait_max_ms=10,
        )
        self._resolutions: dict[SourceCoordinates, Resolution] = {}
        # One past the last record of each partition. The watermarks of the local stack's broker may be too low.
        self._ends: dict[int, int] = {}
        try:
            for message in self._messages(dict.fromkeys(self.partitions())):
                self._ends[message.partition() or 0] = (message.offset() or 0) + 1
                if (resolved := read_resolution(message)) is not None:
                    self._resolutions[resolved[0]] = resolved[1]
        except BaseException:
            self._consumer.close()
            raise

    def dead_letters(self) -> Iterator[DeadLetter]:
        """All dead letters, oldest first. A new iteration ends an earlier one that is unfinished.

        A sink that ends after it wrote dead letters, and before it wrote the ledger, writes them again. The second
        dead letter of the same coordinates is left out.
        """
        seen: dict[tuple[str, int], set[int]] = {}
        for message in self._messages(self._ends):
            dead_letter = read_dead_letter(message, self._resolutions)
            if dead_letter is not None:
                offsets = seen.setdefault((intern(dead_letter.topic_id), dead_letter.partition), set())
                if dead_letter.offset not in offsets:
                    offsets.add(dead_letter.offset)
                    yield dead_letter

    def _messages(self, ends: Mapping[int, int | None]) -> Iterator[Message]:
        """The records of these partitions up to an offset, or up to the partition's end."""
        unread = set(ends)
        if not unread:
            return
        for message in self.consume(dict.fromkeys(unread, 0)):
            partition, offset = message.partition(), message.offset()
            if partition not in unread or offset is None:
                continue
            end = ends[partition]
            if message.error() is None and (end is None or offset < end):
                yield message
            if message.error() is not None or (end is not None and offset + 1 >= end):
                unread.discard(partition)
                if not unread:
                    return


def read_dead_letters(settings: DeadLetterSettings) -> Iterator[DeadLetter]:
    """All dead letters from the topic's start to its end; blocks and raises as the reader does."""
    with DeadLetterReader(settings) as reader:
        yield from reader.dead_letters()


def read_dead_letter(message: Message, resolutions: Mapping[SourceCoordinates, Resolution]) -> DeadLetter | None:
    """Read a record of the topic as a dead letter, with its resolution; None if it is something else."""
    headers = tuple(record_headers(message) or ())
    # Our headers come last, and win: the refused record may have headers of the same names.
    values = dict(headers)
    coordinates = _coordinates(values)
    if REASON not in values or coordinates is None:
        return None
    topic_id, partition, offset = coordinates
    return DeadLetter(
        reason=_text(values, REASON),
        error=_text(values, ERROR),
        topic=_text(values, SOURCE_TOPIC),
        topic_id=topic_id,
        partition=partition,
        offset=offset,
        written_at=_written_at(message),
        key=message.key(),
        content=message.value(),
        headers=headers,
        dead_letter_partition=message.partition() or 0,
        resolution=resolutions.get(coordinates),
    )


def read_resolution(message: Message) -> tuple[SourceCoordinates, Resolution] | None:
    """Read a record of the topic as the resolution of a dead letter; None if it is something else."""
    values = dict(record_headers(message) or ())
    coordinates, state = _coordinates(values), _text(values, RESOLUTION)
    # A dead letter has a reason, a resolution record has none. So a producer cannot resolve a dead letter with
    # headers of its own.
    if REASON in values or coordinates is None or state not in {"replayed", "dropped"}:
        return None
    resolution = Resolution(
        state=cast("Literal['replayed', 'dropped']", intern(state)),
        at=_written_at(message),
        by=intern(_text(values, RESOLUTION_BY)),
        why=intern(_text(values, RESOLUTION_WHY)),
        edited=RESOLUTION_EDITED in values,
        partition=_number(values, RESOLUTION_PARTITION),
        offset=_number(values, RESOLUTION_OFFSET),
    )
    return coordinates, resolution


def resolution_headers(dead_letter: DeadLetter, resolution: Resolution) -> list[tuple[str, bytes]]:
    """The headers of a resolution record; its own timestamp is ``resolution.at``."""
    texts = {
        RESOLUTION: resolution.state,
        RESOLUTION_BY: resolution.by,
        RESOLUTION_WHY: resolution.why or None,
        RESOLUTION_EDITED: "true" if resolution.edited else None,
        RESOLUTION_PARTITION: resolution.partition,
        RESOLUTION_OFFSET: resolution.offset,
        SOURCE_TOPIC: dead_letter.topic,
        SOURCE_TOPIC_ID: dead_letter.topic_id,
        SOURCE_PARTITION: dead_letter.partition,
        SOURCE_OFFSET: dead_letter.offset,
    }
    return [(name, str(text).encode()) for name, text in texts.items() if text is not None]


def _coordinates(headers: Mapping[str, bytes | None]) -> SourceCoordinates | None:
    partition, offset = _number(headers, SOURCE_PARTITION), _number(headers, SOURCE_OFFSET)
    if partition is None or offset is None:
        return None
    return intern(_text(headers, SOURCE_TOPIC_ID)), partition, offset


def _text(headers: Mapping[str, bytes | None], name: str) -> str:
    return (headers.get(name) or b"").decode("utf-8", "replace")


def _number(headers: Mapping[str, bytes | None], name: str) -> int | None:
    text = _text(headers, name)
    return int(text) if text.isascii() and text.isdigit() else None


def _written_at(message: Message) -> datetime:
    return datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
