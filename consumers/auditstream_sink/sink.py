"""The loop: fetch, fill a batch, have it written, commit; and the callbacks of a rebalance.

The ledger in ClickHouse decides which records were read. Kafka's committed offsets follow it, for the tools that show
lag. When partitions are assigned, reading goes on one past the end of their ledger. So a crash between the ledger and
the commit repeats nothing, and an empty ClickHouse is filled from the start of the topic.

The consumer belongs to the loop's thread; each batch is written in a thread of the worker. While batches are written
the loop fills the next one, and while ClickHouse is away it goes on polling and stays in its group.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from auditstream_schemas.errors import AuditstreamError, RegistryError
from auditstream_schemas.registry import RegistryClient
from auditstream_sink.assignment import Assignment, Positions
from auditstream_sink.batch_builder import BatchBuilder
from auditstream_sink.batch_writer import BatchWriter, TakenOverError
from auditstream_sink.clickhouse_writer import ClickHouseWriter, UnknownOutcomeError
from auditstream_sink.client import BrokerEvents, Lag, consumer_settings, raise_if_fatal
from auditstream_sink.clock import Clock
from auditstream_sink.dead_letters import DeadLetterLimit, DeadLetters
from auditstream_sink.health import Health, dependency_at_fault
from auditstream_sink.health_server import HealthServer
from auditstream_sink.metrics import Metrics
from auditstream_sink.settings import SinkSettings
from auditstream_sink.worker import Worker
from auditstream_sink.writer_schemas import UnusableSchema, WriterSchema, WriterSchemas
from auditstream_storage import LedgerLine, LedgerTotals

_POLL_SECONDS = 0.1
_MAX_UNPOLLED_SECONDS = 5.0
"""Longest wait for the worker or the registry without polling. Not polling delays rebalances, so it should be short. To
poll during a wait the partitions must be paused, which drops prefetched records, so it should not be too short."""

_logger = logging.getLogger("auditstream.sink")


class Sink:
    """Moves audit events from their topic into ClickHouse. Connects to nothing before `run`.

    Args:
        settings: Topic, database, and size of a batch.
        on_lines: Called after each commit with the new ledger lines.
        clock: For deadlines, and for the times in rows and ledger lines. Tests replace it, and the four classes.

    Attributes:
        metrics: Counts records, steps and commits.

    Raises:
        SettingsError: A setting is out of range or malformed.
        SinkError: The port of the health address cannot be bound.
    """

    def __init__(
        self,
        settings: SinkSettings,
        *,
        on_lines: Callable[[Sequence[LedgerLine]], None] | None = None,
        clock: Clock | None = None,
        consumer_class: type[Consumer] = Consumer,
        clickhouse_class: type[ClickHouseWriter] = ClickHouseWriter,
        dead_letters_class: type[DeadLetters] = DeadLetters,
        schemas_class: type[WriterSchemas] = WriterSchemas,
    ) -> None:
        self._settings, self._on_lines = settings, on_lines
        self._clock = clock = clock or Clock()
        self.metrics = metrics = Metrics(clock)
        self._health = health = Health(settings, metrics, clock)
        limit = DeadLetterLimit(settings, metrics)
        events = BrokerEvents(settings, health)
        callbacks = {"error_cb": events.on_error, "stats_cb": events.on_statistics}
        self._consumer = consumer_class({**consumer_settings(settings), **callbacks})
        self._lag = Lag(settings.topic, self._consumer, metrics, clock)
        registry = RegistryClient(settings.schema_registry_url, ca_file=settings.schema_registry_ca_file, retries=0)
        self._schemas = schemas_class(registry, metrics)
        self._assignment = Assignment()
        self._builder = BatchBuilder(settings, clock, self._assignment, self._schema)
        instance = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
        # The loop has a connection of its own: a batch writer's may be in the middle of a statement.
        self._positions = Positions(settings, self._consumer, clickhouse_class(settings, instance=instance))

        def new_writer() -> BatchWriter:
            return BatchWriter(
                clickhouse=clickhouse_class(settings, instance=instance),
                dead_letters=dead_letters_class(settings),
                topic_id=self._positions.topic_id,
                clock=clock,
                dead_letter_limit=limit,
                metrics=metrics,
                health=health,
            )

        self._worker = Worker(new_writer)
        address = settings.health_address
        self._server = HealthServer(address, health, metrics.registry) if address else None
        self._totals = LedgerTotals()
        self._poll_by = 0.0
        self._stop_by: float | None = None
        self._failure: AuditstreamError | None = None

    @property
    def health_url(self) -> str | None:
        """Address of /healthz, /readyz and /metrics while the sink runs; None if no address was given."""
        return self._server.url if self._server else None

    def stop(self) -> None:
        """Ask the loop to finish its batches and return. Does not block; safe to call from a signal handler."""
        if self._stop_by is None:
            self._stop_by = self._clock.monotonic() + self._settings.drain_seconds

    def run(self, *, until_idle: float | None = None) -> LedgerTotals:
        """Read, write and commit until ``stop`` is called. Blocks.

        Args:
            until_idle: Return when all assigned partitions were read to their end, and no record has arrived for so
                many seconds since.

        Raises:
            SinkError: A person has to repair something; all records so far are in the ledger.
        """
        try:
            if self._server is not None:
                self._server.start()
                _logger.info("health and metrics at %s", self._server.url)
            self._consumer.subscribe(
                [self._settings.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            self._loop(until_idle)
            if not self._drain(self._stop_by):
                _logger.warning("stopped before the last batch was written: the next sink reads it again")
        except BaseException:
            # Closing the consumer triggers a revoke, which would write this batch before the one that failed.
            self._builder.swap()
            raise
        finally:
            self._close()
        return self._totals

    def _loop(self, until_idle: float | None) -> None:
        idle_since: float | None = None
        while self._stop_by is None:
            records = self._fill()
            self._finish(0)
            if self._builder.is_due(is_busy=self._worker.is_busy):
                self._hand_over()
            now = self._clock.monotonic()
            if records or self._worker.is_busy or not self._assignment.is_at_end:
                idle_since = None
            elif idle_since is None:
                idle_since = now
            elif until_idle is not None and now - idle_since >= until_idle and self._builder.batch.is_empty:
                return

    def _fill(self) -> int:
        """Add the records that have arrived to the batch; returns how many were fetched."""
        if self._assignment.unpositioned:
            self._position()
        if self._assignment.must_seek:
            self._seek()
        records = self._poll(self._builder.free_rows, _POLL_SECONDS)
        batch = self._builder.batch
        rows, size = batch.rows, batch.size
        self._poll_by = self._clock.monotonic() + _MAX_UNPOLLED_SECONDS
        for record in records:
            # After a change of the assignment, adding records that were fetched before might leave a gap.
            if self._assignment.must_seek:
                break
            if not self._builder.add(record):
                self._assignment.must_seek = True
        self.metrics["consumed_records_total"].inc(batch.rows - rows)
        self.metrics["consumed_bytes_total"].inc(batch.size - size)
        return len(records)

    def _poll(self, number: int, seconds: float) -> list[Message]:
        """Fetch up to ``number`` records; the callbacks run meanwhile."""
        records = self._consumer.consume(number, seconds)
        if self._failure is not None:
            raise self._failure
        if records:
            self._health.recovered("consumer")
        self._health.polled(partitions=len(self._assignment), unpositioned=len(self._assignment.unpositioned))
        self._lag.update(self._assignment, (*self._worker.offset_ranges, self._builder.batch.offset_ranges))
        return records

    def _poll_paused(self, seconds: float) -> bool:
        """Wait without leaving the group: pause the partitions and go on polling. False if ``stop`` was called."""
        until = self._clock.monotonic() + seconds
        self._consumer.pause(self._consumer.assignment())
        self.metrics["paused"].set(1)
        try:
            while self._clock.monotonic() < until:
                for record in self._poll(1, min(_POLL_SECONDS, seconds)):
                    error = record.error()
                    if error is not None:
                        raise_if_fatal(error, self._settings.topic)
                    elif record.partition() in self._assignment.next_offsets:
                        # Fetched before the pause. It is read again after a seek of all partitions: a seek of the
                        # paused one alone may be lost when it is resumed.
                        self._assignment.must_seek = True
                if self._stop_by is not None:
                    return False
        finally:
            self._consumer.resume(self._consumer.assignment())
            self.metrics["paused"].set(0)
        return True

    def _back_off(self, attempt: int) -> bool:
        """Poll paused before the next attempt, for half a minute at most. False if ``stop`` was called."""
        return self._poll_paused(min(30.0, 0.2 * 2 ** min(attempt, 10)))

    def _schema(self, schema_id: int) -> WriterSchema | UnusableSchema | None:
        """Ask the registry until it answers, and go on polling meanwhile.

        None if ``stop`` was called or the assignment has changed. Also None if the loop has to poll: garbage records
        may each have a schema id of their own, and each needs a request.
        """
        if known := self._schemas.get_known(schema_id):
            return known
        if self._clock.monotonic() >= self._poll_by:
            return None
        attempt = 0
        while not self._assignment.must_seek:
            try:
                schema = self._schemas.get(schema_id)
            except RegistryError as error:
                self._health.waiting("schemas", "registry", error)
            else:
                self._health.recovered("schemas")
                return schema
            attempt += 1
            if not self._back_off(attempt):
                break
        return None

    def _hand_over(self) -> None:
        """Hand the batch to the worker; polls until the worker has room for it."""
        if self._worker.is_full:
            self._finish(_MAX_UNPOLLED_SECONDS)
        while self._worker.is_full:
            if not self._poll_paused(1.0):
                return
            self._finish(0)
        if not self._builder.batch.is_empty:
            self._begin()
            self._schemas.forget_unusable(self._clock.monotonic())

    def _begin(self) -> None:
        self._worker.begin(self._builder.swap(), self._assignment.topic_id, self._assignment.ledger_ends)

    def _finish(self, timeout: float) -> bool:
        """Commit the oldest batch of the worker; False if it is not written within ``timeout`` seconds."""
        try:
            lines = self._worker.collect(timeout)
        except TakenOverError as error:
            _logger.warning("%s; its offsets are read on from there", error)
            self._start_over()
            return True
        if lines:
            self._commit(lines)
        return lines is not None

    def _commit(self, lines: Sequence[LedgerLine]) -> None:
        for line in lines:
            self._totals = self._totals.with_line(line)
        offsets = [TopicPartition(self._settings.topic, line.partition, line.next_offset) for line in lines]
        try:
            with self.metrics.step("commit"):
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # Nothing is lost: the next sink reads on from the end of the ledger.
            _logger.warning("offsets not committed: %s", error.args[0].str())
        if self._on_lines is not None:
            self._on_lines(lines)

    def _drain(self, deadline: float | None) -> bool:
        """Write and commit everything that was read; after the deadline cancel it and return False."""
        by = deadline if deadline is not None else self._clock.monotonic() + self._settings.drain_seconds
        is_written = True
        while is_written:
            if not self._worker.is_full and not self._builder.batch.is_empty:
                self._begin()
            if not self._worker.is_busy:
                return True
            is_written = self._finish(max(0.0, by - self._clock.monotonic()))
        self._cancel()
        return False

    def _cancel(self) -> None:
        self._worker.cancel()
        self._builder.swap()

    def _start_over(self) -> None:
        """Discard everything that is not in the ledger, and read it again."""
        self._cancel()
        self._assignment.reset()

    def _position(self) -> None:
        """Look up where to read newly assigned partitions on, however long broker or ClickHouse are away."""
        attempt = 0
        while self._assignment.unpositioned and self._stop_by is None:
            partitions = sorted(self._assignment.unpositioned)
            try:
                with self.metrics.step("position"):
                    topic_id, fencing_time, ledger_ends = self._positions.look_up(partitions)
            except UnknownOutcomeError as error:
                self._health.waiting("positions", dependency_at_fault(error), error)
                attempt += 1
                if not self._back_off(attempt):
                    return
                continue
            if self._assignment.is_other_topic(topic_id):
                # The topic was created again: records that were read under the old id are discarded.
                self._start_over()
            elif self._assignment.positioned(topic_id, fencing_time, ledger_ends):
                _logger.info("reading on from %s", {number: end.end + 1 for number, end in ledger_ends.items()})
        self._health.recovered("positions")

    def _seek(self) -> None:
        """Move the consumer to the next offset of every partition; drops prefetched records."""
        topic, offsets = self._settings.topic, self._assignment.next_offsets
        positions = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        # A seek fails on a partition whose fetcher has not started yet; assigning the partition again does not.
        self._consumer.incremental_unassign(positions)
        self._consumer.incremental_assign(positions)
        self._consumer.resume(positions)
        self._assignment.sought()

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        # The loop positions them, which takes as long as ClickHouse is away. Until then they are paused.
        partitions = _numbers(assigned)
        positions = [TopicPartition(self._settings.topic, partition, OFFSET_BEGINNING) for partition in partitions]
        consumer.incremental_assign(positions)
        consumer.pause(positions)
        self._assignment.assigned(partitions)
        self._health.rebalanced("assigned", unpositioned=len(self._assignment.unpositioned))

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        _logger.info("revoked %s", _numbers(revoked))
        try:
            is_drained = self._drain(None)
        except AuditstreamError as error:
            self._failure, is_drained = error, False
        self._assignment.gone(_numbers(revoked))
        # A record that waited for the registry may be gone; if not, the wait begins again.
        self._health.recovered("schemas")
        consumer.incremental_unassign(revoked)
        if not is_drained:
            self._start_over()
        self._health.rebalanced("revoked", unpositioned=len(self._assignment.unpositioned))

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        _logger.warning("lost %s: another sink has them", _numbers(lost))
        self._assignment.gone(_numbers(lost))
        self._health.recovered("schemas")
        self._start_over()
        consumer.incremental_unassign(lost)
        self._health.rebalanced("lost", unpositioned=len(self._assignment.unpositioned))

    def _close(self) -> None:
        try:
            self._consumer.close()
        finally:
            self._worker.close()
            if self._server is not None:
                self._server.close()
            self._positions.close()


def _numbers(partitions: Iterable[TopicPartition]) -> list[int]:
    return sorted(partition.partition for partition in partitions)
