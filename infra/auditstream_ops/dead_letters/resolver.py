"""Closing letters: their records are sent again, or a person says why not; a marker tells it to everybody.

The marker of a replayed letter is written once the broker has the record. A crash between the two leaves the
letter open, and the next replay sends it again: the sink takes the second delivery for a duplicate, or refuses
it once more.
"""

import getpass
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from uuid_utils.compat import uuid7

from auditstream_ops.dead_letters.content import RecordDecoder
from auditstream_ops.dead_letters.dead_letter import HEADER_PREFIX, DeadLetter, Headers, Resolution, resolution_headers
from auditstream_producer import ProducerSettings
from auditstream_schemas.catalog import validate_payload
from auditstream_schemas.codec import SCHEMA_JSON, encode
from auditstream_schemas.errors import OperationError
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.registry import RegistryClient
from auditstream_schemas.settings import load
from auditstream_sink import DeadLetterSettings

REPLAYED_FROM = "auditstream.replayed-from"
"""On a replayed record: topic id, partition and offset that it had, slashes between."""

_OMITTED = "the letter does not hold the record, which was too large: see its source, or --edit"
_CHUNK_LETTERS = 500
_CHUNK_BYTES = 8 * 1024 * 1024
_BROKER_SECONDS = 10
_DELIVERY_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """What is sent in a letter's stead.

    Attributes:
        key: The event's id, as the SDK has it.
        value: The event, encoded as the SDK does.
    """

    key: bytes
    value: bytes


@dataclass(slots=True, kw_only=True)
class ResolverOutcome:
    """What became of the letters handed over.

    Attributes:
        sent: Records that the broker has again.
        closed: Letters whose marker the broker has.
        failures: Why records or markers were not delivered, and how many for each reason.
    """

    sent: int = 0
    closed: int = 0
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outgoing:
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    partition: int
    offset: int


class Resolver:
    """Replays and drops letters, some hundreds at a time. Not safe to share between threads.

    Args:
        settings: Where the dead letters are.
        by: Who does it; what markers say.
        why: The reason given; what markers say.
    """

    def __init__(self, settings: DeadLetterSettings, *, by: str, why: str) -> None:
        self._servers = settings.kafka_bootstrap_servers
        self._dead_letters = settings.dead_letters
        self._by = by
        self._why = why
        self._producer = Producer(
            {
                **settings.librdkafka_client("dlq"),
                "enable.idempotence": True,
                "acks": "all",
                # As the SDK has it: a record goes to the partition of its key, and to no new topic.
                "partitioner": "murmur2_random",
                "allow.auto.create.topics": "false",
                # Headers come on top of a record that the broker took.
                "message.max.bytes": 2_000_000,
                "delivery.timeout.ms": _DELIVERY_SECONDS * 1000,
            }
        )

    def require_topics(self, topics: Iterable[str]) -> None:
        """Make sure that the broker has topics, and the dead letters' own; blocks up to 10 seconds for each.

        Raises:
            OperationError: It lacks one, or is not there.
        """
        for topic in (*topics, self._dead_letters):
            try:
                found = self._producer.list_topics(topic, timeout=_BROKER_SECONDS).topics[topic]
            except KafkaException as error:
                raise OperationError(f"no broker at {self._servers}: {error.args[0].str()}") from error
            if found.error is not None:
                raise OperationError(f"topic {topic}: {found.error.str()}; run `auditstream topics`")

    def replay(
        self, letters: Iterable[DeadLetter], *, progress: Callable[[int], object], edited: Edited | None = None
    ) -> ResolverOutcome:
        """Send records again to the topics they came from, and mark their letters.

        Blocks until the broker has answered for all of them. Ends early when the broker takes no record of
        a chunk, or not its markers.

        Args:
            letters: Which.
            progress: Called with the number of letters just done.
            edited: Is sent instead of each letter's own bytes.
        """
        outcome = ResolverOutcome()
        for chunk in _chunks(letters):
            kept = [letter for letter in chunk if edited is not None or not letter.is_omitted]
            outcome.failures[_OMITTED] += len(chunk) - len(kept)
            positions = self._deliver([_record(letter, edited) for letter in kept], outcome)
            sent = [(letter, position) for letter, position in zip(kept, positions, strict=True) if position]
            outcome.sent += len(sent)
            marked = self._mark(
                [(letter, self._marker("replayed", position, edited=edited is not None)) for letter, position in sent],
                outcome,
            )
            progress(len(chunk))
            if (kept and not sent) or marked < len(sent):
                break
        outcome.failures += Counter()  # leaves out what did not happen
        return outcome

    def drop(self, letters: Iterable[DeadLetter], *, progress: Callable[[int], object]) -> ResolverOutcome:
        """Mark letters as dropped; their bytes stay for as long as the topic keeps them. Blocks likewise."""
        outcome = ResolverOutcome()
        for chunk in _chunks(letters):
            marked = self._mark([(letter, self._marker("dropped")) for letter in chunk], outcome)
            progress(len(chunk))
            if marked < len(chunk):
                break
        return outcome

    def _marker(
        self, kind: Literal["replayed", "dropped"], position: _Position | None = None, *, edited: bool = False
    ) -> Resolution:
        return Resolution(
            kind=kind,
            at=datetime.now(UTC),
            by=self._by,
            why=self._why,
            edited=edited,
            partition=None if position is None else position.partition,
            offset=None if position is None else position.offset,
        )

    def _mark(self, marked: Sequence[tuple[DeadLetter, Resolution]], outcome: ResolverOutcome) -> int:
        records = [
            _Outgoing(
                topic=self._dead_letters,
                key=None,
                value=None,
                headers=resolution_headers(letter, marker),
                partition=letter.dead_letter_partition,
            )
            for letter, marker in marked
        ]
        delivered = sum(position is not None for position in self._deliver(records, outcome))
        outcome.closed += delivered
        return delivered

    def _deliver(self, records: Sequence[_Outgoing], outcome: ResolverOutcome) -> list[_Position | None]:
        """Send records and wait for the broker; where each of them lies, or None if it is not surely there."""
        positions: list[_Position | None] = [None] * len(records)

        def reported(index: int, error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is not None:
                outcome.failures[error.str()] += 1
            elif partition is not None and offset is not None:
                positions[index] = _Position(partition=partition, offset=offset)

        for index, record in enumerate(records):
            options: dict[str, Any] = {"partition": record.partition, "headers": list(record.headers)}
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, on_delivery=partial(reported, index), **options
                )
            except KafkaException as error:
                # Refused before it was sent: too large.
                outcome.failures[error.args[0].str()] += 1
            self._producer.poll(0)
        left = self._producer.flush(_DELIVERY_SECONDS + 5)
        if left:
            self._producer.purge()
            self._producer.flush(1)
        return positions


def operator() -> str:
    """Who runs this: ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user that its password file does not know.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def edited_event(
    text: bytes, letter: DeadLetter, settings: DeadLetterSettings, *, decoder: RecordDecoder, new_id: bool
) -> Edited:
    """Encode the JSON of one event to be sent in a letter's stead, checked as the SDK does.

    Args:
        text: The JSON; a missing id is the letter's, with ``new_id`` a new one.
        letter: Instead of which.
        settings: Where the registry is.
        decoder: Finds the letter's id.
        new_id: The event may have another id than the letter's.

    Raises:
        InvalidEventError: The event breaks the contract.
        CatalogError: Its payload breaks the schema of its action.
        OperationError: Its id is not the letter's.
        RegistryError: The registry is away, or lacks the schema.
    """
    own_id = decoder.event_id(letter)
    if own_id is None and not new_id:
        raise OperationError(
            f"the id of the event in {letter.name} cannot be read, so nothing shows that the edited one has the "
            "same: --new-id sends it under its own id"
        )
    event = AuditEvent.from_json(text, defaults={"id": uuid7() if new_id else own_id})
    if not new_id and event.id != own_id:
        raise OperationError(
            f"the edited event has id {event.id}, the letter has {own_id}: keep it, or say --new-id if it is "
            "to be an event of its own"
        )
    mode = load(ProducerSettings).catalog_mode
    if mode != "off":
        validate_payload(event, strict=mode == "strict")
    registry = RegistryClient(settings.schema_registry_url, ca_file=settings.schema_registry_ca_file)
    schema_id = registry.schema_id(f"{letter.topic}-value", SCHEMA_JSON)
    return Edited(key=str(event.id).encode(), value=encode(event, schema_id))


def _record(letter: DeadLetter, edited: Edited | None) -> _Outgoing:
    own = tuple((name, value) for name, value in letter.headers if not name.startswith(HEADER_PREFIX))
    source = f"{letter.topic_id}/{letter.partition}/{letter.offset}"
    return _Outgoing(
        topic=letter.topic,
        key=letter.key if edited is None else edited.key,
        value=letter.content if edited is None else edited.value,
        headers=(*own, (REPLAYED_FROM, source.encode())),
    )


def _chunks(letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Letters that may be in memory together."""
    chunk: list[DeadLetter] = []
    size = 0
    for letter in letters:
        chunk.append(letter)
        size += len(letter.value)
        if len(chunk) >= _CHUNK_LETTERS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
