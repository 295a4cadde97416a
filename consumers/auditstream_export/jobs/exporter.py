"""The exporter: reads requests from their topic, runs one job at a time, and commits a request when its job has ended.

The consumer group assigns a job to one exporter. The loop polls the consumer while a job runs in another thread, so a
job may take any time. Requests that arrive meanwhile wait in memory, in order.
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

from auditstream_export.files import open_directory
from auditstream_export.jobs.export_job import ExportJob, job_from_request
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_export.jobs.job_run import JobInterruptedError, JobRun
from auditstream_export.jobs.job_store import JobStore
from auditstream_export.query.snapshot import ROWS
from auditstream_export.settings import JobSettings
from auditstream_schemas.background import in_background
from auditstream_schemas.errors import ExportError
from auditstream_schemas.kafka import fatal_fault, group_settings
from auditstream_schemas.timestamp import NANOSECONDS
from auditstream_storage import Emit

_POLL_SECONDS = 0.2
_STOP_SECONDS = 10.0
"""Time for a job to stop; it stops between two pieces of ClickHouse's answer."""
_METADATA_SECONDS = 5.0
_EXPIRY_INTERVAL = 60 * NANOSECONDS

_logger = logging.getLogger("auditstream.export")


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunningJob:
    run: JobRun
    request: Message
    outcome: "Future[ExportJob]"


class Exporter:
    """Runs the export jobs of a request topic."""

    def __init__(
        self,
        settings: JobSettings,
        emit: Emit,
        *,
        clock: Callable[[], int] = time.time_ns,
        on_ended: Callable[[ExportJob], object] | None = None,
        slice_rows: int = ROWS,
    ) -> None:
        """Create the consumer; no request is read until `run`.

        Args:
            settings: Connections to Kafka and ClickHouse, and the target of the files.
            emit: Emits an audit event; may block until it is delivered.
            clock: Returns nanoseconds since the epoch.
            on_ended: Called with every job that ended in this exporter.
            slice_rows: Events per query; the export can be resumed after each query.

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
        self._directory = open_directory(settings.export_target, settings)
        self._audit = JobAudit(emit, scope_type=settings.scope_type, clock=clock)
        self._consumer = Consumer(
            {
                **settings.librdkafka_client("exporter"),
                **group_settings(settings.export_group, session_timeout_ms=settings.session_timeout_ms),
                # Reading old requests again is harmless: the state of an ended job is stored.
                "auto.offset.reset": "earliest",
                "queued.min.messages": 1,
            }
        )
        self._running: _RunningJob | None = None
        # Partitions are not paused while a job runs, because librdkafka may lose fetched records on a pause. Requests
        # are few and small.
        self._waiting: deque[Message] = deque()
        self._assigned: set[int] = set()
        self._stopped = threading.Event()
        self._expiry_checked_at = 0
        self._ended = 0

    def stop(self) -> None:
        """Make `run` interrupt the running job and return. Safe to call from a signal handler."""
        self._stopped.set()

    def run(self, *, until_idle: float | None = None) -> int:
        """Run jobs until `stop` is called, and return how many ended in this exporter. Blocks.

        Args:
            until_idle: Also return when no job ran for so many seconds and the group has committed every request.

        Raises:
            ExportError: The topic is missing, access is denied, or the Kafka client failed.
        """
        try:
            self._consumer.subscribe(
                [self._settings.requests], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            self._loop(until_idle)
        finally:
            self._stop_job()
            self._consumer.close()
            self._store.close()
        return self._ended

    def _loop(self, until_idle: float | None) -> None:
        busy_at = time.monotonic()
        while not self._stopped.is_set():
            message = self._consumer.poll(_POLL_SECONDS)
            if message is not None:
                self._receive(message)
            self._collect()
            self._start_next()
            self._delete_expired()
            if message is not None or self._running is not None or not self._assigned:
                busy_at = time.monotonic()
            elif until_idle is not None and time.monotonic() - busy_at >= until_idle:
                if self._is_all_committed():
                    return
                busy_at = time.monotonic()

    def _is_all_committed(self) -> bool:
        """Whether the group has committed every request; blocks on the broker."""
        topic = self._settings.requests
        try:
            numbers = self._consumer.list_topics(topic, _METADATA_SECONDS).topics[topic].partitions
            partitions = [TopicPartition(topic, number) for number in numbers]
            for partition in self._consumer.committed(partitions, _METADATA_SECONDS):
                low, high = self._consumer.get_watermark_offsets(partition, _METADATA_SECONDS)
                if max(low, partition.offset) < high:
                    return False
        except KafkaException as error:
            _logger.info("cannot read the committed offsets: %s", error.args[0].str())
            return False
        return True

    def _receive(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._waiting.append(message)
        elif fault := fatal_fault(error, self._settings.requests):
            raise ExportError(fault)
        else:
            _logger.info("broker: %s", error.str())

    def _start_next(self) -> None:
        """Start the job of the oldest waiting request, if no job is running."""
        while self._running is None and self._waiting:
            request = self._waiting.popleft()
            try:
                job = job_from_request(request.value() or b"")
            except ExportError as error:
                _logger.warning("partition %s, offset %s: %s; skipped", request.partition(), request.offset(), error)
                self._commit(request)
                continue
            run = JobRun(
                job=job,
                settings=self._settings,
                store=self._store,
                directory=self._directory,
                audit=self._audit,
                worker=self._name,
                clock=self._clock,
                slice_rows=self._slice_rows,
            )
            _logger.info("export %s: started", job.id)
            outcome = in_background(run.run, "auditstream-exporter")
            self._running = _RunningJob(run=run, request=request, outcome=outcome)

    def _collect(self) -> None:
        """If the running job has ended, commit its request."""
        running = self._running
        if running is None or not running.outcome.done():
            return
        self._running = None
        try:
            job = running.outcome.result()
        except JobInterruptedError as error:
            _logger.warning("%s", error)
            if running.request.partition() in self._assigned:
                self._waiting.appendleft(running.request)
        else:
            _logger.info("export %s: %s", job.id, job.state)
            self._ended += 1
            self._commit(running.request)
            if self._on_ended is not None:
                self._on_ended(job)

    def _commit(self, request: Message) -> None:
        try:
            self._consumer.commit(message=request, asynchronous=False)
        except KafkaException as error:
            # An exporter that reads the request again finds the state of the ended job.
            _logger.warning("offset not committed: %s", error.args[0].str())

    def _stop_job(self) -> None:
        """Interrupt the running job; if it ends meanwhile, commit its request."""
        if self._running is None:
            return
        self._running.run.stop()
        try:
            self._running.outcome.exception(_STOP_SECONDS)
        except TimeoutError:
            _logger.warning("the interrupted job stops only when ClickHouse answers")
            self._running = None
            return
        self._assigned.discard(self._running.request.partition() or 0)
        self._collect()

    def _delete_expired(self) -> None:
        """Delete the files of expired exports, once a minute."""
        now = self._clock()
        if now - self._expiry_checked_at < _EXPIRY_INTERVAL:
            return
        self._expiry_checked_at = now
        try:
            for job in self._store.expired(now):
                self._directory.clear(str(job.id))
                version = max(self._store.now(), job.version + 1)
                self._store.write(replace(job, version=version, state="expired", changed_at=now))
                _logger.info("export %s: expired", job.id)
        except ExportError as error:
            _logger.warning("expired files are not deleted yet: %s", error)

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        consumer.incremental_assign(assigned)
        self._assigned |= _numbers(assigned)

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        if self._running is not None and self._running.request.partition() in _numbers(revoked):
            self._stop_job()
        self._unassign(consumer, revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        if self._running is not None and self._running.request.partition() in _numbers(lost):
            _logger.warning("lost partition %s: another exporter has its job", self._running.request.partition())
            self._running.run.stop()
            self._running = None
        self._unassign(consumer, lost)

    def _unassign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assigned -= _numbers(partitions)
        self._waiting = deque(request for request in self._waiting if request.partition() in self._assigned)
        consumer.incremental_unassign(partitions)


def _numbers(partitions: list[TopicPartition]) -> set[int]:
    return {partition.partition for partition in partitions}
