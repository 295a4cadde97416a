"""The local queue of encoded events, and the thread that delivers them to the broker.

An event waits in a deque until the registry has answered with the schema id, because every record starts
with that id; then it waits inside librdkafka. The thread that emits never waits for either.
"""

import encodings.idna  # noqa: F401 - imported later, in the thread, its import lock could be copied by a fork
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from auditstream_producer.emitter import DeliveryFailure, ProducerStats
from auditstream_producer.settings import ProducerSettings
from auditstream_schemas.codec import SCHEMA_JSON, join
from auditstream_schemas.errors import QueueFullError, RegistryError, SettingsError
from auditstream_schemas.registry import RegistryClient

OnError = Callable[[DeliveryFailure], None]

_LOG = logging.getLogger("auditstream.producer")
_KAFKA_LOG = logging.getLogger("auditstream.kafka")

_POLL_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 15.0
_REGISTRY_SECONDS = 3.0
_GRACE_SECONDS = 2.0
_JOIN_SECONDS = 0.5
_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # noqa: SLF001 - librdkafka's own codes start with _
_UNKNOWN_TOPIC = (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART)  # noqa: SLF001 - the same
_TIMED_OUT = KafkaError._MSG_TIMED_OUT  # noqa: SLF001 - the same
_FATAL = KafkaError._FATAL
_CLOSED = "the producer was closed before the broker acknowledged it"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outgoing:
    """An accepted event. It fails if librdkafka does not have it by the deadline (`time.monotonic`)."""

    key: str
    body: bytes
    tag: object
    deadline: float


class Delivery:
    """A bounded queue of encoded events, one thread and one librdkafka producer (``kafka``).

    Every event that `send` accepts becomes delivered or failed, exactly once. Safe to share between threads,
    not between processes.
    """

    def __init__(self, settings: ProducerSettings, on_error: OnError | None) -> None:
        """Start the thread. Raises `SettingsError` if the registry's URL or a librdkafka setting is malformed."""
        self._settings = settings
        self._on_error = on_error
        self._registry = RegistryClient(
            settings.schema_registry_url, ca_file=settings.schema_registry_ca_file, timeout=_REGISTRY_SECONDS, retries=0
        )
        self._log = ThrottledLogger(_LOG)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: deque[_Outgoing] = deque()
        self._prefix: bytes | None = None
        self._accepted = self._delivered = self._failed = self._bytes = 0
        self._closed = self._abandoning = self._broken = False
        self._stop = threading.Event()
        self.kafka = self._connect()
        self._thread = threading.Thread(target=self._run, name="auditstream-producer", daemon=True)
        self._thread.start()

    def send(self, event_id: UUID, body: bytes, tag: object) -> None:
        """Accept an encoded event. Never waits for the network.

        Raises:
            QueueFullError: The queue has reached its limit of events or of bytes.
            RuntimeError: The producer is closed.
        """
        deadline = time.monotonic() + self._settings.producer_delivery_timeout
        outgoing = _Outgoing(key=str(event_id), body=body, tag=tag, deadline=deadline)
        with self._lock:
            if self._closed:
                raise RuntimeError("the producer is closed: emit before close()")
            self._require_room(len(body))
            self._accepted += 1
            self._bytes += len(body)
            prefix = self._prefix
            if prefix is None:
                self._waiting.append(outgoing)
        if prefix is not None:
            self._produce(prefix, outgoing)

    def flush(self, timeout: float) -> int:
        """Wait until every event is delivered or failed, at most ``timeout`` seconds; return how many are neither."""
        with self._idle:
            self._idle.wait_for(lambda: self._in_queue() == 0, timeout)
            return self._in_queue()

    def close(self, timeout: float) -> int:
        """Flush, report the remaining events as failed, and stop; return how many remained.

        Blocks for ``timeout`` and at most about 4 seconds more. A second call does nothing and returns 0.
        """
        with self._lock:
            if self._closed:
                return 0
            self._closed = True
        remaining = self.flush(timeout)
        if remaining:
            self._abandon()
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)
        self._registry.close()
        return remaining

    def stats(self) -> ProducerStats:
        """Return the counts, all of the same moment."""
        with self._lock:
            return ProducerStats(accepted=self._accepted, delivered=self._delivered, failed=self._failed)

    def _in_queue(self) -> int:
        return self._accepted - self._delivered - self._failed

    def _require_room(self, size: int) -> None:
        settings, waiting = self._settings, self._in_queue()
        if waiting < settings.producer_queue_events and (
            # An event larger than the limit of bytes is accepted if the queue is empty; otherwise it never would be.
            waiting == 0 or self._bytes + size <= settings.producer_queue_bytes
        ):
            return
        raise QueueFullError(
            f"the local queue is full: {waiting} events ({self._bytes} bytes) wait for the broker at "
            f"{settings.kafka_bootstrap_servers}, which is down or too slow; try again later, or raise "
            "AUDITSTREAM_PRODUCER_QUEUE_EVENTS or AUDITSTREAM_PRODUCER_QUEUE_BYTES"
        )

    def _connect(self) -> Producer:
        config: dict[str, Any] = {**self._settings.librdkafka_producer(), "error_cb": self._on_kafka_error}
        try:
            return Producer(config, logger=_KafkaLines())
        except KafkaException as error:
            raise SettingsError(
                f"librdkafka refuses its settings: {error.args[0].str()}; "
                "correct the file that AUDITSTREAM_KAFKA_CONFIG_FILE names"
            ) from error

    def _run(self) -> None:
        pause, due = _FIRST_PAUSE_SECONDS, 0.0
        while not self._stop.is_set():
            if (self._prefix is None or self._broken) and time.monotonic() >= due:
                if self._broken:
                    self._reconnect()
                else:
                    self._look_up_schema()
                due = time.monotonic() + pause * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, no secret
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            self._move_waiting()
            self._poll()

    def _poll(self) -> None:
        try:
            self.kafka.poll(_POLL_SECONDS)
        except KafkaException as error:
            # The binding raises a fatal error here instead of passing it to error_cb.
            self._on_kafka_error(error.args[0])
            self._broken = True

    def _look_up_schema(self) -> None:
        subject = self._settings.subject
        try:
            schema_id = self._registry.schema_id(subject, SCHEMA_JSON)
        except RegistryError as error:
            self._log.log(logging.WARNING, "registry", f"events wait in the local queue: {error}")
            return
        with self._lock:
            self._prefix = join(schema_id, b"")
        _LOG.debug("schema of %s has id %d", subject, schema_id)

    def _reconnect(self) -> None:
        # librdkafka sends nothing after a fatal error. Its events come back through their delivery reports and
        # are sent again by a new one; their ids make that safe.
        self.kafka.purge()
        end = time.monotonic() + _GRACE_SECONDS
        while len(self.kafka) and time.monotonic() < end:
            self._poll()
        self.kafka = self._connect()
        self._broken = False

    def _move_waiting(self) -> None:
        while not self._broken:
            with self._lock:
                prefix = self._prefix
                expired = bool(self._waiting) and self._waiting[0].deadline <= time.monotonic()
                if not self._waiting or (prefix is None and not expired):
                    return
                outgoing = self._waiting.popleft()
            if expired or prefix is None:
                self._fail(outgoing, self._timeout_reason())
            else:
                self._produce(prefix, outgoing)

    def _produce(self, prefix: bytes, outgoing: _Outgoing) -> None:
        report = partial(self._on_report, outgoing)
        try:
            self.kafka.produce(self._settings.topic, key=outgoing.key, value=prefix + outgoing.body, on_delivery=report)
        except KafkaException as error:
            self._on_refusal(outgoing, error.args[0])

    def _on_report(self, outgoing: _Outgoing, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._on_refusal(outgoing, error)
            return
        with self._idle:
            self._delivered += 1
            self._remove(outgoing)

    def _on_refusal(self, outgoing: _Outgoing, error: KafkaError) -> None:
        code = error.code()
        if error.fatal() or code == _FATAL:
            self._broken = True
        if self._broken and not self._abandoning:
            with self._lock:
                self._waiting.append(outgoing)
            return
        if code == _TIMED_OUT:
            reason = self._timeout_reason()
        elif code in _PURGED:
            reason = _CLOSED
        elif code in _UNKNOWN_TOPIC:
            reason = f"the broker has no topic {self._settings.topic}: run `auditstream topics` to create it"
        else:
            reason = f"the broker refused it: {error.str()} ({error.name()})"
        self._fail(outgoing, reason)

    def _fail(self, outgoing: _Outgoing, reason: str) -> None:
        # The report comes before the count: after flush() returned, every failure has been reported.
        self._log.log(logging.ERROR, reason, f"event {outgoing.key} not delivered: {reason}")
        if self._on_error is not None:
            failure = DeliveryFailure(event_id=UUID(outgoing.key), reason=reason, body=outgoing.body, tag=outgoing.tag)
            try:
                self._on_error(failure)
            except Exception:  # noqa: BLE001 - the service's own code; its error must not stop other events
                _LOG.exception("on_error raised for event %s", outgoing.key)
        with self._idle:
            self._failed += 1
            self._remove(outgoing)

    def _remove(self, outgoing: _Outgoing) -> None:
        self._bytes -= len(outgoing.body)
        if self._in_queue() == 0:
            self._idle.notify_all()

    def _abandon(self) -> None:
        self._abandoning = True
        end = time.monotonic() + _GRACE_SECONDS
        # Repeated, because a thread inside send() may add its event after the first pass.
        while self.stats().in_queue and time.monotonic() < end:
            with suppress(IndexError):  # emptied, here or by the thread
                while True:
                    self._fail(self._waiting.popleft(), _CLOSED)
            self.kafka.purge()
            self._poll()
        if remaining := self.stats().in_queue:
            _LOG.error("%d events are neither delivered nor failed: librdkafka did not report them in time", remaining)

    def _timeout_reason(self) -> str:
        return (
            f"not acknowledged within {self._settings.producer_delivery_timeout:g} seconds: "
            f"is the broker at {self._settings.kafka_bootstrap_servers} up?"
        )

    def _on_kafka_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken = True
        text = f"{error.str()}; {self.stats().in_queue} events wait in the local queue"
        self._log.log(logging.WARNING, "kafka", text)


class _KafkaLines:
    """Receives librdkafka's log lines. The producer's own lines are fewer, and name the effect on events."""

    def log(self, _level: int, text: str, *args: object) -> None:
        """Log the line at level DEBUG."""
        _KAFKA_LOG.debug(text, *args)


class ThrottledLogger:
    """Logs one line of each kind per interval, with the number of lines suppressed since the last one.

    Safe to share between threads; two threads may at worst log the same line twice.
    """

    def __init__(
        self, logger: logging.Logger, *, interval: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with nothing logged; ``interval`` and ``clock`` are in seconds."""
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._next: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def log(self, level: int, kind: str, text: str) -> None:
        """Log ``text``, unless a line of this kind was logged less than an interval ago."""
        now = self._clock()
        if now < self._next.get(kind, now):
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return
        self._next[kind] = now + self._interval
        suppressed = self._suppressed.pop(kind, 0)
        self._logger.log(level, "%s%s", text, f" ({suppressed} more since the last such line)" if suppressed else "")
