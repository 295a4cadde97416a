"""The loop: consume, gather, settle, commit; and what a rebalance does to it.

The ledger in ClickHouse is the truth about what was read; Kafka's committed offsets follow it, for the
tools that watch lag. On an assignment reading goes on where the books end, so a crash between the books
and the commit repeats nothing, and an empty ClickHouse is filled from the start of the topic.

The consumer belongs to the loop's thread, ClickHouse and the dead letters to the worker's: while batches are
settled the next one is read, and while ClickHouse is away the loop goes on polling and stays in the group.
"""

import json
import logging
import os
import socket
from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from auditstream_schemas.errors import AuditstreamError, RegistryError
from auditstream_schemas.registry import RegistryClient
from auditstream_sink.batch_builder import BatchBuilder
from auditstream_sink.batch_writer import BatchWriter, TakenOverError
from auditstream_sink.clickhouse_writer import ClickHouseWriter, UnknownOutcomeError
from auditstream_sink.client import consumer_settings, raise_if_fatal
from auditstream_sink.clock import Clock, SystemClock
from auditstream_sink.dead_letter_limit import DeadLetterLimit
from auditstream_sink.dead_letters import DeadLetters
from auditstream_sink.health import Health, part_at_fault
from auditstream_sink.health_server import HealthServer
from auditstream_sink.lag import Lag
from auditstream_sink.metrics import Metrics
from auditstream_sink.positions import Positions
from auditstream_sink.settings import SinkSettings
from auditstream_sink.worker import Worker
from auditstream_sink.writers import UnusableSchema, WriterSchema, WriterSchemas
from auditstream_storage import LedgerLine, LedgerTotals

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0
"""Waiting longer than this for the batch before, the loop pauses its partitions and polls: a pause drops what
librdkafka has fetched ahead, so it should be rare; not polling delays rebalances, so it should be short. Asking the
registry for longer, one unknown schema id after another, it polls before it goes on."""

_logger = logging.getLogger("auditstream.sink")


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
        self._metrics = Metrics(self._clock)
        self._health = Health(settings, self._metrics, self._clock)
        self._writers = WriterSchemas(
            RegistryClient(settings.schema_registry_url, ca_file=settings.schema_registry_ca_file, retries=0),
            self._metrics,
        )
        self._consumer = Consumer(
            {**consumer_settings(settings), "error_cb": self._on_error, "stats_cb": self._on_statistics}
        )
        self._lag = Lag(settings.topic, self._consumer, self._metrics, self._clock)
        # A connection of the loop's own: the settlement's may be in the middle of a statement.
        self._books = ClickHouseWriter(settings, instance=self._instance)
        self._positions = Positions(settings, self._consumer, self._books)
        self._flood = DeadLetterLimit(settings, self._metrics)
        self._worker = Worker(self._new_settlement)
        self._topic_id = UUID(int=0)
        self._unpositioned: set[int] = set()
        self._placements = self._read_placements = 0
        self._intake = BatchBuilder(settings, self._clock, self._schema)
        self._totals = LedgerTotals()
        self._ask_until = 0.0
        self._stop_by: float | None = None
        self._failure: AuditstreamError | None = None
        self._server: HealthServer | None = None
        if settings.health_address:
            self._server = HealthServer(settings.health_address, self._health, self._metrics.registry)

    @property
    def health_url(self) -> str | None:
        """Where /healthz, /readyz and /metrics are answered while it runs; None if no address was given."""
        return self._server.url if self._server else None

    def stop(self) -> None:
        """Ask the loop to finish the batches in hand and return. Safe to call from a signal handler."""
        if self._stop_by is None:
            self._stop_by = self._clock.monotonic() + self._settings.drain_seconds

    def run(self, *, until_idle: float | None = None) -> LedgerTotals:
        """Read, settle and commit until told to stop. Blocks.

        Args:
            until_idle: Return when nothing has arrived for so many seconds since all partitions that were
                assigned were read to their end.

        Raises:
            SinkError: It cannot go on without a person; what was read so far is in the books.
        """
        try:
            if self._server is not None:
                self._server.start()
                _logger.info("health and metrics at %s", self._server.url)
            self._consumer.subscribe(
                [self._settings.topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            self._loop(until_idle)
            if not self._drain(self._stop_by):
                _logger.warning("stopped with a batch in hand: the next sink reads it again")
        except BaseException:
            # What follows a batch that failed may not be settled in its stead.
            self._intake.swap()
            raise
        finally:
            self._close()
        return self._totals

    def _loop(self, until_idle: float | None) -> None:
        quiet_since: float | None = None
        while self._stop_by is None:
            records = self._gather()
            self._finish(0)
            if self._intake.is_due(is_busy=self._worker.is_busy):
                self._hand_over()
            now = self._clock.monotonic()
            if records or self._worker.is_busy or self._unpositioned or not self._intake.is_at_end:
                quiet_since = None
            elif quiet_since is None:
                quiet_since = now
            elif until_idle is not None and now - quiet_since >= until_idle and self._intake.batch.is_empty:
                return

    def _gather(self) -> int:
        """Take what has arrived into the batch; how much that was."""
        if self._unpositioned:
            self._place()
        if self._placements != self._read_placements:
            self._rewind()
        records = self._consume(self._intake.room, _POLL_SECONDS)
        batch = self._intake.batch
        rows, size = batch.rows, batch.bytes
        self._ask_until = self._clock.monotonic() + _PATIENCE_SECONDS
        for record in records:
            if self._placements != self._read_placements:
                # Placed anew under records that were fetched before: taking those might leave a gap.
                break
            if not self._intake.take(record):
                # It and those behind it are fetched again.
                self._placements += 1
                break
        self._metrics.consumed(batch.rows - rows, batch.bytes - size)
        return len(records)

    def _consume(self, number: int, seconds: float) -> list[Message]:
        """Poll: take what has arrived, up to ``number`` records, and let the callbacks run."""
        records = self._consumer.consume(number, seconds)
        if self._failure is not None:
            raise self._failure
        if records:
            self._health.go_on("client")
        self._health.polled(
            partitions=len(self._intake.next) + len(self._unpositioned), unpositioned=len(self._unpositioned)
        )
        self._lag.show(self._intake.next, self._worker.tails, (*self._worker.spans, self._intake.batch.spans))
        return records

    def _schema(self, schema_id: int) -> WriterSchema | UnusableSchema | None:
        """Ask the registry until it answers, and stay in the group meanwhile.

        None when told to stop; and when enough was asked since the last poll, as for records that are garbage,
        each with an id of its own.
        """
        known = self._writers.get_known(schema_id)
        if known is not None:
            return known
        if self._clock.monotonic() >= self._ask_until:
            return None
        attempt, placements = 0, self._placements
        while self._placements == placements:
            try:
                schema = self._writers.get(schema_id)
            except RegistryError as error:
                self._health.wait("schemas", "registry", error)
            else:
                self._health.go_on("schemas")
                return schema
            attempt += 1
            if not self._poll_paused(min(30.0, 0.2 * 2 ** min(attempt, 10))):
                break
        return None

    def _hand_over(self) -> None:
        """Give the batch to the worker once that can take it; polls meanwhile."""
        if self._worker.is_full:
            self._finish(_PATIENCE_SECONDS)
        while self._worker.is_full:
            if not self._poll_paused(1.0):
                return
            self._finish(0)
        if not self._intake.batch.is_empty:
            self._begin()
            self._writers.forget_unusable(self._clock.monotonic())

    def _begin(self) -> None:
        """Let the worker, which is not full, settle the batch."""
        self._worker.begin(self._intake.swap(), self._topic_id)

    def _finish(self, timeout: float) -> bool:
        """Commit the oldest batch that the worker has in hand; False if it is still at it."""
        try:
            lines = self._worker.collect(timeout)
        except TakenOverError as error:
            _logger.warning("%s; its offsets are read on from there", error)
            self._start_over()
            return True
        if lines is None:
            return False
        if lines:
            self._commit(lines)
        return True

    def _commit(self, lines: Sequence[LedgerLine]) -> None:
        for line in lines:
            self._totals = self._totals.with_line(line)
        offsets = [TopicPartition(self._settings.topic, line.partition, line.next_offset) for line in lines]
        try:
            with self._metrics.step("commit"):
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # The books hold already: whoever reads on goes by them.
            _logger.warning("offsets not committed: %s", error.args[0].str())
        if self._on_lines is not None:
            self._on_lines(lines)

    def _new_settlement(self) -> BatchWriter:
        return BatchWriter(
            ClickHouseWriter(self._settings, instance=self._instance),
            DeadLetters(self._settings),
            self._positions.topic_id,
            self._clock,
            flood=self._flood,
            metrics=self._metrics,
            health=self._health,
        )

    def _drain(self, deadline: float | None) -> bool:
        """Settle and commit everything in hand; False if the deadline passed, and then all of it is given up."""
        by = deadline if deadline is not None else self._clock.monotonic() + self._settings.drain_seconds
        is_settled = True
        while is_settled:
            if not self._worker.is_full and not self._intake.batch.is_empty:
                self._begin()
            if not self._worker.is_busy:
                return True
            is_settled = self._finish(max(0.0, by - self._clock.monotonic()))
        self._worker.give_up()
        self._intake.swap()
        return False

    def _start_over(self) -> None:
        """Forget what is in hand; partitions that are ours are read again from where the books end."""
        self._worker.give_up()
        self._intake.swap()
        self._unpositioned |= set(self._intake.next)
        self._intake.next.clear()
        self._placements += 1

    def _place(self) -> None:
        """Find where to read newly given partitions on, however long broker or ClickHouse are away."""
        attempt = 0
        while self._unpositioned and self._stop_by is None:
            wanted = sorted(self._unpositioned)
            try:
                with self._metrics.step("place"):
                    topic_id = self._positions.topic_id()
                    tails = self._positions.of(topic_id, wanted)
                    fencing_time = self._positions.fencing_time()
            except UnknownOutcomeError as error:
                self._health.wait("places", part_at_fault(error), error)
                attempt += 1
                if not self._poll_paused(min(30.0, 0.2 * 2 ** min(attempt, 10))):
                    return
                continue
            if not self._unpositioned.issuperset(wanted):
                continue
            if topic_id != self._topic_id and self._intake.next:
                # Created anew: what was read under the old id ends here.
                self._start_over()
                continue
            self._topic_id, self._intake.fencing_time = topic_id, fencing_time
            self._unpositioned -= set(wanted)
            self._worker.tails.update(tails)
            self._intake.next |= {partition: tail.end + 1 for partition, tail in tails.items()}
            self._placements += 1
            _logger.info("reading on from %s", {partition: self._intake.next[partition] for partition in wanted})
        self._health.go_on("places")

    def _rewind(self) -> None:
        """Read every partition from where the batch in hand ends, whatever was fetched ahead."""
        self._read_placements = self._placements
        self._intake.at_end.clear()
        places = [
            TopicPartition(self._settings.topic, partition, offset) for partition, offset in self._intake.next.items()
        ]
        # A seek fails on a partition whose fetcher has not started yet; assigning it anew does not.
        self._consumer.incremental_unassign(places)
        self._consumer.incremental_assign(places)
        self._consumer.resume(places)

    def _poll_paused(self, seconds: float) -> bool:
        """Wait without leaving the group: partitions are paused and polling goes on. False when told to stop."""
        until = self._clock.monotonic() + seconds
        self._consumer.pause(self._consumer.assignment())
        self._metrics.paused(yes=True)
        try:
            while self._clock.monotonic() < until:
                for record in self._consume(1, min(_POLL_SECONDS, seconds)):
                    self._put_back(record)
                if self._stop_by is not None:
                    return False
        finally:
            self._consumer.resume(self._consumer.assignment())
            self._metrics.paused(yes=False)
        return True

    def _put_back(self, record: Message) -> None:
        """A record that slipped out of a paused partition is read again later.

        By placing all partitions anew: a seek on one that is paused is not surely kept when it is resumed.
        """
        error = record.error()
        if error is not None:
            raise_if_fatal(error, self._settings.topic)
        elif record.partition() in self._intake.next:
            self._placements += 1

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        # The loop finds their places: that may take as long as ClickHouse is away. Until then they stand still.
        topic = self._settings.topic
        places = [TopicPartition(topic, place.partition, OFFSET_BEGINNING) for place in assigned]
        consumer.incremental_assign(places)
        consumer.pause(places)
        self._unpositioned |= {place.partition for place in assigned}
        self._health.rebalanced("assigned", unpositioned=len(self._unpositioned))

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        _logger.info("revoked %s", sorted(place.partition for place in revoked))
        try:
            finished = self._drain(None)
        except AuditstreamError as error:
            self._failure, finished = error, False
        self._forget(consumer, revoked)
        if not finished:
            self._start_over()
        self._health.rebalanced("revoked", unpositioned=len(self._unpositioned))

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        _logger.warning("lost %s: another sink owns them", sorted(place.partition for place in lost))
        self._worker.give_up()
        self._intake.swap()
        self._forget(consumer, lost)
        self._start_over()
        self._health.rebalanced("lost", unpositioned=len(self._unpositioned))

    def _forget(self, consumer: Consumer, gone: list[TopicPartition]) -> None:
        for place in gone:
            self._intake.next.pop(place.partition, None)
            self._unpositioned.discard(place.partition)
        self._placements += 1
        consumer.incremental_unassign(gone)

    def _on_error(self, error: KafkaError) -> None:
        """Say once that no broker answers; librdkafka says it again and again."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._health.wait("client", "broker", error.str())

    def _on_statistics(self, statistics: str) -> None:
        """See what no callback tells: that a broker is there again, and that a group needs no more members."""
        is_waiting = self._health.is_waiting("client")
        if self._health.is_member and not is_waiting:
            return
        found = json.loads(statistics)
        if is_waiting and any(broker["state"] == "UP" for broker in found["brokers"].values()):
            self._health.go_on("client")
        if self._settings.group_protocol == "consumer" and found.get("cgrp", {}).get("state") == "up":
            # Unlike the classic protocol, this one calls nobody for an empty assignment.
            self._health.joined()

    def _close(self) -> None:
        try:
            self._consumer.close()
        finally:
            self._worker.close()
            if self._server is not None:
                self._server.close()
            self._books.close()
