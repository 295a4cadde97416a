"""The worker: takes requests off their topic, runs one at a time, and commits a request when its job has ended.

The consumer group is the lease. The loop's thread has the consumer and goes on polling while a job runs in a thread
of its own, so that a job may take as long as it needs; requests that come meanwhile wait in memory, in their order.
"""

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from auditstream_export.jobs.export_job import ExportJob, job_from_request
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_export.jobs.job_files import job_files
from auditstream_export.jobs.job_run import JobRun, LeftError
from auditstream_export.jobs.job_store import JobStore
from auditstream_export.query.slices import ROWS
from auditstream_export.settings import JobSettings
from auditstream_schemas.background import in_background
from auditstream_schemas.errors import ExportError
from auditstream_schemas.kafka import fatal_fault, group_settings
from auditstream_schemas.timestamp import NANOSECONDS
from auditstream_storage import Emit

_POLL_SECONDS = 0.2
_LEAVE_SECONDS = 10.0
"""To leave a job: it does between two pieces of ClickHouse's answer."""
_ASK_SECONDS = 5.0
_SWEEP_EVERY = 60 * NANOSECONDS

_logger = logging.getLogger("auditstream.export")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    place: TopicPartition
    text: bytes | str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    run: JobRun
    request: _Request
    outcome: "Future[ExportJob]"


class Exporter:
    """Runs exports that were asked for."""

    def __init__(
        self,
        settings: JobSettings,
        emit: Emit,
        *,
        clock: Callable[[], int] = time.time_ns,
        on_ended: Callable[[ExportJob], object] | None = None,
        slice_rows: int = ROWS,
    ) -> None:
        """Nothing is taken yet.

        Args:
            settings: Where requests come from, where events, state and files are.
            emit: Takes the events about exports; may wait until they are delivered.
            clock: Nanoseconds since the epoch.
            on_ended: Told every job that has ended here.
            slice_rows: Events after which an export can be resumed.

        Raises:
            SettingsError: A setting is missing or malformed.
            ExportError: The target is malformed.
        """
        self._settings = settings.checked()
        self._clock = clock
        self._on_ended = on_ended
        self._slice_rows = slice_rows
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
        self._store = JobStore(settings)
        self._files = job_files(settings)
        self._audit = JobAudit(emit, scope_type=settings.scope_type, clock=clock)
        self._consumer = Consumer(
            {
                **settings.librdkafka_client("exporter"),
                **group_settings(settings.export_group, session_timeout_ms=settings.session_timeout_ms),
                # A request that was run already is known by its state.
                "auto.offset.reset": "earliest",
                "queued.min.messages": 1,
            }
        )
        self._running: _Running | None = None
        # Not paused while a job runs: requests are small and few, and what a pause drops is not surely read again.
        self._waiting: deque[_Request] = deque()
        self._assigned: set[int] = set()
        self._stopped = threading.Event()
        self._swept_at = 0
        self._ended = 0

    def stop(self) -> None:
        """Ask the loop to leave the job in hand and return. Safe to call from a signal handler."""
        self._stopped.set()

    def run(self, *, until_idle: float | None = None) -> int:
        """Run jobs until told to stop, and return how many ended here. Blocks.

        Args:
            until_idle: Return when there was nothing to do for so many seconds, and no other worker has a job either.

        Raises:
            ExportError: It cannot go on without a person.
        """
        try:
            self._consumer.subscribe(
                [self._settings.requests],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            self._loop(until_idle)
        finally:
            self._leave(_LEAVE_SECONDS)
            self._consumer.close()
            self._store.close()
        return self._ended

    def _loop(self, until_idle: float | None) -> None:
        busy_at = time.monotonic()
        while not self._stopped.is_set():
            message = self._consumer.poll(_POLL_SECONDS)
            if message is not None:
                self._heed(message)
            self._collect()
            self._begin_next()
            self._sweep()
            if message is not None or self._running is not None or not self._assigned:
                busy_at = time.monotonic()
            elif until_idle is not None and time.monotonic() - busy_at >= until_idle:
                if self._is_all_done():
                    return
                busy_at = time.monotonic()

    def _is_all_done(self) -> bool:
        """Whether the group has committed every request; blocks on the broker."""
        topic = self._settings.requests
        try:
            partitions = self._consumer.list_topics(topic, _ASK_SECONDS).topics[topic].partitions
            places = [TopicPartition(topic, partition) for partition in partitions]
            for place in self._consumer.committed(places, _ASK_SECONDS):
                low, high = self._consumer.get_watermark_offsets(place, _ASK_SECONDS)
                if max(low, place.offset) < high:
                    return False
        except KafkaException as error:
            _logger.info("what is left to do is not known: %s", error.args[0].str())
            return False
        return True

    def _heed(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if fault := fatal_fault(error, self._settings.requests):
                raise ExportError(fault)
            _logger.info("broker: %s", error.str())
            return
        place = TopicPartition(self._settings.requests, message.partition() or 0, message.offset() or 0)
        self._waiting.append(_Request(place=place, text=message.value() or b""))

    def _begin_next(self) -> None:
        """Take the request that has waited longest, if no job is running."""
        while self._running is None and self._waiting:
            request = self._waiting.popleft()
            try:
                self._begin(job_from_request(request.text), request)
            except ExportError as unreadable:
                place = request.place
                _logger.warning("partition %d, offset %d: %s; passed over", place.partition, place.offset, unreadable)
                self._commit(place)

    def _begin(self, record: ExportJob, request: _Request) -> None:
        run = JobRun(
            record,
            settings=self._settings,
            store=self._store,
            files=self._files,
            audit=self._audit,
            worker=self._name,
            clock=self._clock,
            slice_rows=self._slice_rows,
        )
        _logger.info("export %s: taken", record.id)
        self._running = _Running(run=run, request=request, outcome=in_background(run.run, "auditstream-exporter"))

    def _collect(self) -> None:
        """Commit the request of a job that has ended, and go on."""
        running = self._running
        if running is None or not running.outcome.done():
            return
        self._running = None
        try:
            job = running.outcome.result()
        except LeftError as left:
            _logger.warning("%s", left)
            if running.request.place.partition in self._assigned:
                self._waiting.appendleft(running.request)
        else:
            _logger.info("export %s: %s", job.id, job.state)
            self._ended += 1
            self._commit(running.request.place)
            if self._on_ended is not None:
                self._on_ended(job)

    def _commit(self, record: TopicPartition) -> None:
        following = TopicPartition(record.topic, record.partition, record.offset + 1)
        try:
            self._consumer.commit(offsets=[following], asynchronous=False)
        except KafkaException as error:
            # Whoever takes the request again finds that its job has ended.
            _logger.warning("offset not committed: %s", error.args[0].str())

    def _leave(self, seconds: float) -> None:
        """Leave the job in hand, unless it ends meanwhile."""
        if self._running is None:
            return
        self._running.run.leave()
        try:
            self._running.outcome.exception(seconds)
        except TimeoutError:
            _logger.warning("a job that was left goes on until ClickHouse answers; it will find that it was left")
            self._running = None
            return
        self._assigned.discard(self._running.request.place.partition)
        self._collect()

    def _sweep(self) -> None:
        """Remove the files of exports that have expired."""
        now = self._clock()
        if now - self._swept_at < _SWEEP_EVERY:
            return
        self._swept_at = now
        try:
            for job in self._store.expired(now):
                self._files.clear(job.id)
                version = max(self._store.now(), job.version + 1)
                self._store.write(replace(job, version=version, state="expired", changed_at=now))
                _logger.info("export %s: expired", job.id)
        except ExportError as error:
            _logger.warning("files that have expired stay for now: %s", error)

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        consumer.incremental_assign(assigned)
        self._assigned |= {place.partition for place in assigned}

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        partitions = {place.partition for place in revoked}
        if self._running is not None and self._running.request.place.partition in partitions:
            self._leave(_LEAVE_SECONDS)
        self._forget(partitions)
        consumer.incremental_unassign(revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        partitions = {place.partition for place in lost}
        if self._running is not None and self._running.request.place.partition in partitions:
            partition = self._running.request.place.partition
            _logger.warning("lost partition %d: another worker has its job", partition)
            self._running.run.leave()
            self._running = None
        self._forget(partitions)
        consumer.incremental_unassign(lost)

    def _forget(self, partitions: set[int]) -> None:
        self._assigned -= partitions
        self._waiting = deque(each for each in self._waiting if each.place.partition not in partitions)
