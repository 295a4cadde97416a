"""The loop: consume, gather, settle, commit; and what a rebalance does to it.

The ledger in ClickHouse is the truth about what was read; Kafka's committed offsets follow it, for the
tools that watch lag. On an assignment reading goes on where the books end, so a crash between the books
and the commit repeats nothing, and an empty ClickHouse is filled from the start of the topic.
"""

import contextlib
import dataclasses
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID, uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from auditstream_schemas.codec import split
from auditstream_schemas.errors import AuditstreamError, RegistryError, SinkError, WireFormatError
from auditstream_schemas.registry import RegistryClient
from auditstream_sink.batch import Batch
from auditstream_sink.clock import Clock, SystemClock
from auditstream_sink.dead_letters import DeadLetters
from auditstream_sink.positions import Positions
from auditstream_sink.settings import SinkSettings
from auditstream_sink.settlement import Settlement, TakenOverError
from auditstream_sink.warehouse import LedgerLine, UnknownOutcomeError, Warehouse
from auditstream_sink.writers import UnusableSchema, WriterSchema, WriterSchemas

_POLL_SECONDS = 0.2
_CONSUME_AT_MOST = 10_000

_FATAL = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._FATAL,
    }
)

_logger = logging.getLogger("auditstream.sink")


class _AbandonedError(AuditstreamError):
    """The batch in hand is not ours to finish any more."""


@dataclasses.dataclass(slots=True)
class Totals:
    """What one run of the sink did.

    Attributes:
        batches: Ledger lines written.
        read: Records read; the sum of the five counts that follow.
        stored: New rows of the event log.
        duplicates: Second deliveries of an id.
        conflicts: Other content under a known id.
        invalid: Broken records.
        expired: Older than the retention.
    """

    batches: int = 0
    read: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    invalid: int = 0
    expired: int = 0

    def add(self, line: LedgerLine) -> None:
        """Count one ledger line."""
        self.batches += 1
        for name in ("read", "stored", "duplicates", "conflicts", "invalid", "expired"):
            setattr(self, name, getattr(self, name) + getattr(line, name))


class Sink:
    """Moves audit events from their topic into ClickHouse.

    Args:
        settings: From where to where.
        clock: Time; the machine's unless a test brings its own.
        on_lines: Called after each commit with the new lines of the books.
    """

    def __init__(
        self,
        settings: SinkSettings,
        *,
        clock: Clock | None = None,
        on_lines: Callable[[Sequence[LedgerLine]], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._on_lines = on_lines
        self._instance = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
        self._warehouse = Warehouse(settings, instance=self._instance)
        self._dead_letters = DeadLetters(settings)
        self._writers = WriterSchemas(RegistryClient(settings.schema_registry_url))
        self._settlement = Settlement(self._warehouse, self._dead_letters, self._wait, self._clock)
        self._consumer = Consumer(
            {
                **settings.librdkafka_client("sink"),
                "group.id": settings.group,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": settings.session_timeout_ms,
                "heartbeat.interval.ms": max(100, settings.session_timeout_ms // 10),
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # Offsets that are gone must be seen, not skipped or read again in silence.
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
                "isolation.level": "read_committed",
            }
        )
        self._positions = Positions(settings, self._consumer, self._warehouse)
        self._topic_id = UUID(int=0)
        self._next: dict[int, int] = {}
        self._batch = self._empty_batch()
        self._totals = Totals()
        self._stop_by: float | None = None
        self._settling = False
        self._in_callback_until: float | None = None
        self._abandoned = False
        self._failure: AuditstreamError | None = None

    def stop(self) -> None:
        """Ask the loop to finish the batch in hand and return. Safe to call from a signal handler."""
        if self._stop_by is None:
            self._stop_by = self._clock.monotonic() + self._settings.drain_seconds

    def run(self, *, until_idle: float | None = None) -> Totals:
        """Read, settle and commit until told to stop. Blocks.

        Args:
            until_idle: Return when nothing has arrived for so many seconds since partitions were assigned.

        Raises:
            SinkError: It cannot go on without a person; what was read so far is in the books.
        """
        try:
            self._settlement.persistently(self._warehouse.open)
            self._consumer.subscribe(
                [self._settings.topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            self._loop(until_idle)
            self._flush()
        except _AbandonedError:
            _logger.warning("stopped with a batch in hand: the next sink reads it again")
        finally:
            self._close()
        return self._totals

    def _loop(self, until_idle: float | None) -> None:
        quiet_since: float | None = None
        while self._stop_by is None:
            records = self._consumer.consume(self._room(), _POLL_SECONDS)
            if self._failure is not None:
                raise self._failure
            for record in records:
                self._take(record)
            now = self._clock.monotonic()
            if self._is_full(now):
                self._flush()
            if records or not self._next:
                quiet_since = None
            elif quiet_since is None:
                quiet_since = now
            elif until_idle is not None and now - quiet_since >= until_idle:
                return

    def _room(self) -> int:
        return max(1, min(_CONSUME_AT_MOST, self._settings.flush_rows - self._batch.rows))

    def _is_full(self, now: float) -> bool:
        return self._batch.rows > 0 and (
            self._batch.rows >= self._settings.flush_rows
            or self._batch.bytes >= self._settings.flush_bytes
            or now - self._batch.opened >= self._settings.flush_seconds
        )

    def _take(self, record: Message) -> None:
        error = record.error()
        if error is not None:
            self._broker_said(error)
            return
        partition, offset = record.partition(), record.offset()
        if partition is None or offset is None:
            return
        expected = self._next.get(partition)
        if expected is None or offset < expected:
            # Revoked meanwhile; or delivered twice, as librdkafka has done after an incremental assignment.
            return
        value = record.value()
        data = value if isinstance(value, bytes) else b""
        if self._batch.rows == 0:
            self._batch = self._empty_batch()
        self._sort(record, partition, offset, data)
        self._batch.count(partition, offset, len(data), expected)
        self._next[partition] = offset + 1

    def _sort(self, record: Message, partition: int, offset: int, data: bytes) -> None:
        try:
            schema_id, body = split(data)
        except WireFormatError as error:
            self._batch.refuse(record, "wire_format", str(error))
            return
        schema = self._writers.get_known(schema_id) or self._settlement.persistently(lambda: self._writer(schema_id))
        if isinstance(schema, UnusableSchema):
            self._batch.refuse(record, schema.reason, schema.error)
        else:
            self._batch.add(record, schema, partition, offset, body)

    def _writer(self, schema_id: int) -> WriterSchema | UnusableSchema:
        try:
            return self._writers.get(schema_id)
        except RegistryError as error:
            raise UnknownOutcomeError(str(error)) from error

    def _flush(self) -> None:
        """Settle the batch in hand and commit; on return the batch is empty."""
        batch = self._batch
        if not batch.rows:
            return
        self._settling = True
        try:
            lines = self._settlement.settle(batch, self._topic_id)
        except TakenOverError as error:
            _logger.warning("%s; its offsets are read on from there", error)
            self._abandon()
            return
        except _AbandonedError:
            self._abandon()
            if self._stop_by is not None:
                raise
            return
        finally:
            self._settling = False
        self._batch = self._empty_batch()
        self._writers.forget_unusable()
        for line in lines:
            self._totals.add(line)
        self._commit(lines)
        if self._on_lines is not None:
            self._on_lines(lines)

    def _commit(self, lines: Sequence[LedgerLine]) -> None:
        offsets = [TopicPartition(self._settings.topic, line.partition, line.last_offset + 1) for line in lines]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # The books hold already: whoever reads on goes by them.
            _logger.warning("offsets not committed: %s", error.args[0].str())

    def _abandon(self) -> None:
        """Forget the batch in hand; partitions still ours are read again from where the books end."""
        self._batch = self._empty_batch()
        self._abandoned = False
        ours = list(self._next)
        self._next.clear()
        if ours:
            for place in self._settlement.persistently(lambda: self._places(ours)):
                self._consumer.seek(place)

    def _wait(self, seconds: float) -> None:
        """Wait without leaving the group: partitions are paused and the consumer goes on polling.

        Raises:
            _AbandonedError: The partitions moved, or the time to finish is over.
        """
        now = self._clock.monotonic()
        until = now + seconds
        limit = self._stop_by if self._in_callback_until is None else self._in_callback_until
        if limit is not None and now >= limit:
            raise _AbandonedError
        if self._in_callback_until is not None:
            # A rebalance callback may not poll; it is short by its own deadline.
            self._clock.sleep(min(until, self._in_callback_until) - now)
            return
        held = self._consumer.assignment()
        self._consumer.pause(held)
        try:
            while self._clock.monotonic() < until and self._stop_by is limit:
                for record in self._consumer.consume(1, min(_POLL_SECONDS, seconds)):
                    self._rewind(record)
                if self._abandoned:
                    raise _AbandonedError
        finally:
            self._consumer.resume(self._consumer.assignment())

    def _rewind(self, record: Message) -> None:
        """A record that slipped out of a paused partition is read again later."""
        error, partition, offset = record.error(), record.partition(), record.offset()
        if error is not None:
            self._broker_said(error)
        elif partition is not None and offset is not None:
            self._consumer.seek(TopicPartition(self._settings.topic, partition, offset))

    def _empty_batch(self) -> Batch:
        return Batch(opened=self._clock.monotonic())

    def _places(self, partitions: Sequence[int]) -> list[TopicPartition]:
        places = self._positions.of(self._topic_id, partitions)
        self._next |= {place.partition: place.offset for place in places}
        return places

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        partitions = [place.partition for place in assigned]
        with self._in_callback():
            try:
                self._topic_id = self._settlement.persistently(self._positions.topic_id)
                places = self._settlement.persistently(lambda: self._places(partitions))
            except _AbandonedError:
                self._fail(SinkError("partitions were assigned, but ClickHouse or the broker did not answer"))
                return
            except SinkError as error:
                self._fail(error)
                return
        _logger.info("assigned %s", {place.partition: place.offset for place in places})
        consumer.incremental_assign(places)

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        _logger.info("revoked %s", sorted(place.partition for place in revoked))
        if self._settling:
            self._abandoned = True
        else:
            with self._in_callback():
                self._flush()
        self._forget(consumer, revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        _logger.warning("lost %s: another sink owns them", sorted(place.partition for place in lost))
        self._abandoned = self._settling
        self._forget(consumer, lost)
        if not self._settling:
            self._abandon()

    def _forget(self, consumer: Consumer, gone: list[TopicPartition]) -> None:
        for place in gone:
            self._next.pop(place.partition, None)
        consumer.incremental_unassign(gone)

    @contextlib.contextmanager
    def _in_callback(self) -> Iterator[None]:
        """Within a rebalance callback everything shares one deadline."""
        self._in_callback_until = self._clock.monotonic() + self._settings.drain_seconds
        try:
            yield
        finally:
            self._in_callback_until = None

    def _fail(self, error: AuditstreamError) -> None:
        """An exception may not pass through a librdkafka callback; the loop raises it."""
        self._failure = error

    def _broker_said(self, error: KafkaError) -> None:
        if error.code() in _FATAL:
            missing = error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            fix = "; run `auditstream topics`" if missing else ""
            raise SinkError(f"topic {self._settings.topic}: {error.str()}{fix}")
        _logger.info("broker: %s", error.str())

    def _close(self) -> None:
        try:
            self._consumer.close()
        finally:
            try:
                self._warehouse.close()
            except UnknownOutcomeError as error:
                _logger.warning("the stage was left behind: %s", error)
