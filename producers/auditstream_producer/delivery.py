"""From an encoded event to the broker's acknowledgement: the local queue and the thread that serves it.

An event waits here until the registry has told the schema's id, which stands in front of every record, and
inside librdkafka from then on. Nothing of this happens on the thread that emits, which never waits.
"""

import encodings.idna  # noqa: F401 - else the thread imports it to connect, and a fork meanwhile copies a held lock
import logging
import random
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from auditstream_producer.notices import ThrottledLogger
from auditstream_producer.outcome import DeliveryFailure, ProducerStats
from auditstream_producer.settings import ProducerSettings
from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_schemas.errors import QueueFullError, RegistryError, SettingsError
from auditstream_schemas.registry import RegistryClient

OnError = Callable[[DeliveryFailure], None]

_LOG = logging.getLogger("auditstream.producer")
_KAFKA_LOG = logging.getLogger("auditstream.kafka")

_PREFIX = struct.Struct(">bI")
_POLL_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 15.0
_REGISTRY_TIMEOUT_SECONDS = 3.0
_GRACE_SECONDS = 2.0
_JOIN_SECONDS = 0.5
_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # noqa: SLF001 - librdkafka's own codes start with _
_UNKNOWN_TOPIC = (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART)  # noqa: SLF001 - the same
_TIMED_OUT = KafkaError._MSG_TIMED_OUT  # noqa: SLF001 - the same
_FATAL = KafkaError._FATAL
_CLOSED = "the producer was closed before the broker acknowledged it"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outgoing:
    """An event on its way.

    Attributes:
        key: The event's id, as text.
        body: The event, encoded.
        tag: The caller's mark.
        deadline: `time.monotonic` at which it is given up if librdkafka does not have it by then.
    """

    key: str
    body: bytes
    tag: object
    deadline: float


class Delivery:
    """A bounded queue of encoded events, one thread and one librdkafka producer.

    Every event that `send` takes ends as delivered or as failed, once. Safe to share between threads, not
    between processes.
    """

    def __init__(self, settings: ProducerSettings, on_error: OnError | None) -> None:
        """Start the thread. Neither the broker nor the registry need be there.

        Raises:
            SettingsError: The registry's URL or a librdkafka setting is malformed.
        """
        self._settings = settings
        self._on_error = on_error
        self._registry = RegistryClient(
            settings.schema_registry_url,
            ca_file=settings.schema_registry_ca_file,
            timeout=_REGISTRY_TIMEOUT_SECONDS,
            retries=0,
        )
        self._notices = ThrottledLogger(_LOG)
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._waiting: deque[_Outgoing] = deque()
        self._prefix: bytes | None = None
        self._accepted = self._delivered = self._failed = self._bytes = 0
        self._closed = self._giving_up = self._broken = False
        self._stop = threading.Event()
        self._kafka = self._connect()
        self._thread = threading.Thread(target=self._run, name="auditstream-producer", daemon=True)
        self._thread.start()

    def send(self, event_id: UUID, body: bytes, tag: object) -> None:
        """Take an encoded event. Never waits for the network.

        Raises:
            QueueFullError: As many events, or bytes, are waiting as the settings allow.
            RuntimeError: The producer is closed.
        """
        outgoing = _Outgoing(
            key=str(event_id),
            body=body,
            tag=tag,
            deadline=time.monotonic() + self._settings.producer_delivery_timeout,
        )
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
        """Wait until every event is delivered or has failed, at most ``timeout`` seconds.

        Returns:
            How many are still on their way.
        """
        with self._settled:
            self._settled.wait_for(lambda: self._left() == 0, timeout)
            return self._left()

    def close(self, timeout: float) -> int:
        """Flush, give up what is left, and stop. Blocks for ``timeout`` and at most some 4 seconds more.

        Returns:
            How many events were given up; each was reported. 0 when already closed.
        """
        with self._lock:
            if self._closed:
                return 0
            self._closed = True
        left = self.flush(timeout)
        if left:
            self._give_up()
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)
        self._registry.close()
        return left

    def stats(self) -> ProducerStats:
        """Return the counts, all of one moment."""
        with self._lock:
            return ProducerStats(accepted=self._accepted, delivered=self._delivered, failed=self._failed)

    @property
    def kafka(self) -> Producer:
        """The librdkafka producer in use."""
        return self._kafka

    def _left(self) -> int:
        return self._accepted - self._delivered - self._failed

    def _require_room(self, size: int) -> None:
        settings, left = self._settings, self._left()
        if left < settings.producer_queue_events and (
            # An event larger than the whole queue passes when it is alone: else it never would.
            left == 0 or self._bytes + size <= settings.producer_queue_bytes
        ):
            return
        raise QueueFullError(
            f"{left} events ({self._bytes} bytes) wait for the broker, and the local queue holds no more: "
            f"the broker at {settings.kafka_bootstrap_servers} is away or too slow; try again later, or raise "
            "AUDITSTREAM_PRODUCER_QUEUE_EVENTS or AUDITSTREAM_PRODUCER_QUEUE_BYTES"
        )

    def _connect(self) -> Producer:
        config: dict[str, Any] = {
            "client.id": "auditstream-producer",
            **self._settings.librdkafka_producer(),
            "error_cb": self._on_kafka_error,
        }
        try:
            return Producer(config, logger=_KafkaLines())
        except KafkaException as error:
            raise SettingsError(
                f"librdkafka refuses its settings: {error.args[0].str()}; "
                "look at the file that AUDITSTREAM_KAFKA_CONFIG_FILE names"
            ) from error

    def _run(self) -> None:
        pause, due = _FIRST_PAUSE_SECONDS, 0.0
        while not self._stop.is_set():
            if (self._prefix is None or self._broken) and time.monotonic() >= due:
                if self._broken:
                    self._reconnect()
                else:
                    self._look_up_schema()
                due = time.monotonic() + pause * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, hides nothing
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            self._move_waiting()
            self._poll()

    def _poll(self) -> None:
        try:
            self._kafka.poll(_POLL_SECONDS)
        except KafkaException as error:
            # The binding raises a fatal error here instead of giving it to error_cb.
            self._on_kafka_error(error.args[0])
            self._broken = True

    def _look_up_schema(self) -> None:
        subject = self._settings.subject
        try:
            schema_id = self._registry.schema_id(subject, SCHEMA_JSON)
        except RegistryError as error:
            self._notices.say(logging.WARNING, "registry", f"events wait in the local queue: {error}")
            return
        with self._lock:
            self._prefix = _PREFIX.pack(0, schema_id)
        _LOG.debug("schema of %s has id %d", subject, schema_id)

    def _reconnect(self) -> None:
        # librdkafka is of no use after a fatal error. What it held comes back through the delivery reports
        # and is sent again: ids make that safe.
        self._kafka.purge()
        end = time.monotonic() + _GRACE_SECONDS
        while len(self._kafka) and time.monotonic() < end:
            self._poll()
        self._kafka = self._connect()
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
        try:
            self._kafka.produce(
                self._settings.topic,
                key=outgoing.key,
                value=prefix + outgoing.body,
                on_delivery=partial(self._on_report, outgoing),
            )
        except KafkaException as error:
            self._on_refusal(outgoing, error.args[0])

    def _on_report(self, outgoing: _Outgoing, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._on_refusal(outgoing, error)
            return
        with self._settled:
            self._delivered += 1
            self._settle(outgoing)

    def _on_refusal(self, outgoing: _Outgoing, error: KafkaError) -> None:
        code = error.code()
        if error.fatal() or code == _FATAL:
            self._broken = True
        if self._broken and not self._giving_up:
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
        # The report comes before the count, so that who waits for the count has every report.
        self._notices.say(logging.ERROR, reason, f"event {outgoing.key} not delivered: {reason}")
        if self._on_error is not None:
            failure = DeliveryFailure(event_id=UUID(outgoing.key), reason=reason, body=outgoing.body, tag=outgoing.tag)
            try:
                self._on_error(failure)
            except Exception:  # noqa: BLE001 - the service's own code, which may raise anything
                # Its fault must not stop the delivery of its other events.
                _LOG.exception("on_error raised for event %s", outgoing.key)
        with self._settled:
            self._failed += 1
            self._settle(outgoing)

    def _settle(self, outgoing: _Outgoing) -> None:
        self._bytes -= len(outgoing.body)
        if self._left() == 0:
            self._settled.notify_all()

    def _give_up(self) -> None:
        self._giving_up = True
        end = time.monotonic() + _GRACE_SECONDS
        # More than once: a thread that was inside send() may hand its event over after the first round.
        while self.stats().in_queue and time.monotonic() < end:
            while self._waiting:
                try:
                    outgoing = self._waiting.popleft()
                except IndexError:
                    break
                self._fail(outgoing, _CLOSED)
            self._kafka.purge()
            self._poll()
        left = self.stats().in_queue
        if left:
            _LOG.error("%d events are in an unknown state: librdkafka did not report them in time", left)

    def _timeout_reason(self) -> str:
        return (
            f"not acknowledged within {self._settings.producer_delivery_timeout:g} seconds: "
            f"is the broker at {self._settings.kafka_bootstrap_servers} up?"
        )

    def _on_kafka_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken = True
        self._notices.say(
            logging.WARNING, "kafka", f"{error.str()}; {self.stats().in_queue} events wait in the local queue"
        )


class _KafkaLines:
    """Takes librdkafka's log lines; the producer says itself, less often, what they mean for events."""

    def log(self, _level: int, text: str, *args: object) -> None:
        """Pass a line on, for those who debug."""
        _KAFKA_LOG.debug(text, *args)
