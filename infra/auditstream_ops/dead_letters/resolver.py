"""Resolves dead letters: sends their records again, or drops them, and writes resolution records.

The resolution record of a replay is written once the broker has the replayed record. A crash between the two leaves
the dead letter open, and the next replay sends the record again. The sink then counts it as a duplicate, or refuses it
again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from uuid_utils.compat import uuid7

from auditstream_ops.dead_letters.content import RecordDecoder
from auditstream_ops.dead_letters.dead_letter import HEADER_PREFIX, DeadLetter, Resolution, resolution_headers
from auditstream_producer import ProducerSettings
from auditstream_schemas.catalog import validate_payload
from auditstream_schemas.codec import SCHEMA_JSON, encode
from auditstream_schemas.errors import OperationError
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.registry import RegistryClient
from auditstream_schemas.settings import load
from auditstream_sink import DeadLetterSettings

REPLAYED_FROM = "auditstream.replayed-from"
"""Header of a replayed record: its former topic id, partition and offset, separated by slashes."""

_OMITTED = "the dead letter is without its record, which was too large: read it at its source, or use --edit"
_CHUNK_DEAD_LETTERS = 500
_CHUNK_BYTES = 8 * 1024 * 1024
_DELIVERY_SECONDS = 30

_Record = dict[str, Any]
"""The arguments of `Producer.produce`."""


class EditedRecord(NamedTuple):
    """The record that is sent instead of the refused one: the event's id, and the event as the SDK encodes it."""

    key: bytes
    value: bytes


@dataclass(slots=True, kw_only=True)
class ResolverOutcome:
    """The number of records and of resolution records that the broker has, and of failures by their message."""

    sent: int = 0
    resolved: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class Resolver:
    """Replays and drops dead letters, some hundreds at a time. Not safe to share between threads.

    The resolution records have the operator (``by``) and the reason (``why``).
    """

    def __init__(self, settings: DeadLetterSettings, *, by: str, why: str) -> None:
        self._dead_letter_topic = settings.dead_letters
        self._resolution = Resolution(state="dropped", at=datetime.now(UTC), by=by, why=why)
        self._producer = Producer(
            {
                **settings.librdkafka_client("dlq"),
                "enable.idempotence": True,
                "acks": "all",
                # As in the SDK: the key determines the partition, and no topic is created.
                "partitioner": "murmur2_random",
                "allow.auto.create.topics": "false",
                # The original record was without our headers, so the replayed one may be larger.
                "message.max.bytes": 2_000_000,
                "delivery.timeout.ms": _DELIVERY_SECONDS * 1000,
            }
        )

    def replay(
        self,
        dead_letters: Iterable[DeadLetter],
        *,
        progress: Callable[[int], object],
        edited: EditedRecord | None = None,
    ) -> ResolverOutcome:
        """Send records again to their topics, or the edited one instead, and write resolution records.

        Blocks until the broker has answered for all of them. Ends early if the broker takes no record of a chunk, or
        not all of its resolution records. ``progress`` is called with the number of dead letters of each finished
        chunk.
        """
        outcome = ResolverOutcome()
        for chunk in _chunks(dead_letters):
            sendable = [dead_letter for dead_letter in chunk if edited is not None or not dead_letter.is_omitted]
            outcome.failures[_OMITTED] += len(chunk) - len(sendable)
            deliveries = self._deliver([_replayed(dead_letter, edited) for dead_letter in sendable], outcome)
            replayed = replace(self._resolution, state="replayed", edited=edited is not None)
            sent = [
                (dead_letter, replace(replayed, partition=at[0], offset=at[1]))
                for dead_letter, at in zip(sendable, deliveries, strict=True)
                if at is not None
            ]
            outcome.sent += len(sent)
            resolved = self._resolve(sent, outcome)
            progress(len(chunk))
            if (sendable and not sent) or resolved < len(sent):
                break
        outcome.failures += Counter()  # leaves out counts of zero
        return outcome

    def drop(self, dead_letters: Iterable[DeadLetter], *, progress: Callable[[int], object]) -> ResolverOutcome:
        """Write resolution records that drop the dead letters, whose bytes stay until the topic's retention ends.

        Blocks and ends early as `replay` does.
        """
        outcome = ResolverOutcome()
        for chunk in _chunks(dead_letters):
            resolved = self._resolve([(dead_letter, self._resolution) for dead_letter in chunk], outcome)
            progress(len(chunk))
            if resolved < len(chunk):
                break
        return outcome

    def _resolve(self, resolutions: Sequence[tuple[DeadLetter, Resolution]], outcome: ResolverOutcome) -> int:
        topic = self._dead_letter_topic
        records: list[_Record] = [
            {"topic": topic, "headers": resolution_headers(*pair), "partition": pair[0].dead_letter_partition}
            for pair in resolutions
        ]
        delivered = sum(at is not None for at in self._deliver(records, outcome))
        outcome.resolved += delivered
        return delivered

    def _deliver(self, records: Sequence[_Record], outcome: ResolverOutcome) -> list[tuple[int, int] | None]:
        """Send records and wait; return partition and offset of each record, None if the broker may not have it."""
        deliveries: list[tuple[int, int] | None] = [None] * len(records)

        def on_delivery(index: int, error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is not None:
                outcome.failures[error.str()] += 1
            elif partition is not None and offset is not None:
                deliveries[index] = (partition, offset)

        for index, record in enumerate(records):
            try:
                self._producer.produce(**record, on_delivery=partial(on_delivery, index))
            except KafkaException as error:
                # The client refuses a record that is too large, before it is sent.
                outcome.failures[error.args[0].str()] += 1
            self._producer.poll(0)
        if self._producer.flush(_DELIVERY_SECONDS + 5):
            self._producer.purge()
            self._producer.flush(1)
        return deliveries


def edited_record(
    text: bytes, dead_letter: DeadLetter, settings: DeadLetterSettings, *, decoder: RecordDecoder, new_id: bool
) -> EditedRecord:
    """Encode the JSON of one event, to be sent instead of a dead letter's record; checked as the SDK does.

    An event without an id gets the dead letter's. With ``new_id`` it gets a new one, and may have another one.

    Raises:
        InvalidEventError: The event breaks the contract.
        CatalogError: Its payload breaks the schema of its action.
        OperationError: Its id is not the dead letter's.
        RegistryError: The registry is not reachable, or does not have the schema.
    """
    own_id = decoder.event_id(dead_letter)
    if own_id is None and not new_id:
        raise OperationError(
            f"the id of the event in {dead_letter.name} cannot be read, so it cannot be compared with the edited "
            "event's: --new-id sends the edited event under its own id"
        )
    event = AuditEvent.from_json(text, defaults={"id": uuid7() if new_id else own_id})
    if not new_id and event.id != own_id:
        raise OperationError(
            f"the edited event has id {event.id}, the dead letter has {own_id}: keep that id, or add --new-id to "
            "send another event"
        )
    mode = load(ProducerSettings).catalog_mode
    if mode != "off":
        validate_payload(event, strict=mode == "strict")
    registry = RegistryClient(settings.schema_registry_url, ca_file=settings.schema_registry_ca_file)
    schema_id = registry.schema_id(f"{dead_letter.topic}-value", SCHEMA_JSON)
    return EditedRecord(str(event.id).encode(), encode(event, schema_id))


def _replayed(dead_letter: DeadLetter, edited: EditedRecord | None) -> _Record:
    own = tuple((name, value) for name, value in dead_letter.headers if not name.startswith(HEADER_PREFIX))
    source = "/".join(map(str, dead_letter.coordinates))
    return {
        "topic": dead_letter.topic,
        "key": dead_letter.key if edited is None else edited.key,
        "value": dead_letter.content if edited is None else edited.value,
        "headers": [*own, (REPLAYED_FROM, source.encode())],
    }


def _chunks(dead_letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Groups of dead letters that fit into memory together."""
    chunk: list[DeadLetter] = []
    size = 0
    for dead_letter in dead_letters:
        chunk.append(dead_letter)
        size += len(dead_letter.value)
        if len(chunk) >= _CHUNK_DEAD_LETTERS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
