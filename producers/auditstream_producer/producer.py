"""The producer of services."""

import atexit
import ctypes
import os
import threading
import weakref
from typing import Self

from auditstream_producer.delivery import Delivery, OnError
from auditstream_producer.emitter import EventEmitter, ProducerStats
from auditstream_producer.settings import ProducerSettings
from auditstream_schemas.errors import UndeliveredError
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import load


class AuditProducer(EventEmitter):
    """Emits audit events to Kafka. Safe to share between threads; make one per process and keep it.

    `emit` never waits for the network. Events wait in a bounded queue in memory until the broker and the
    registry answer; a killed process loses them. docs/promises.md lists what `emit` promises.

    After ``os.fork`` the parent delivers the events that it had accepted; the child has an empty queue, and
    connects at its first `emit`. At interpreter exit a producer that is not closed is closed.
    """

    def __init__(self, settings: ProducerSettings, *, on_error: OnError | None = None) -> None:
        """Start the background thread. The broker and the registry may still be down.

        Args:
            settings: The broker, the registry, and the limits of the queue.
            on_error: Called once for every accepted event that was not delivered, in the background thread
                or in a thread inside `emit` or `close`. It must return quickly and must not call `flush` or
                `close`; it may emit.

        Raises:
            SettingsError: A setting is malformed.
        """
        super().__init__(settings.catalog_mode)
        self._settings = settings
        self._on_error = on_error
        self._lock = threading.Lock()
        self._delivery: Delivery | None = Delivery(settings, on_error)
        self._closed = False
        _PRODUCERS.add(self)
        atexit.register(self.close)

    @classmethod
    def from_env(cls, *, on_error: OnError | None = None) -> Self:
        """Make a producer with the settings of the ``AUDITSTREAM_*`` environment variables.

        Raises:
            SettingsError: A variable is malformed.
        """
        return cls(load(ProducerSettings), on_error=on_error)

    def flush(self, timeout: float) -> int:
        """Wait until every event is delivered or failed, at most ``timeout`` seconds; return how many are neither."""
        return self._delivery.flush(timeout) if self._delivery else 0

    def close(self, timeout: float | None = None) -> int:
        """Flush, report the remaining events as failed, and stop the background thread; return how many remained."""
        atexit.unregister(self.close)
        with self._lock:
            self._closed = True
            delivery = self._delivery
        if delivery is None:
            return 0
        return delivery.close(self._settings.producer_close_timeout if timeout is None else timeout)

    def stats(self) -> ProducerStats:
        """Return the counts of events, all of the same moment; after a fork those of this process alone."""
        return self._delivery.stats() if self._delivery else ProducerStats()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close.

        Raises:
            UndeliveredError: Events failed, there is no ``on_error``, and the block itself raised nothing.
        """
        self.close()
        stats = self.stats()
        if stats.failed and self._on_error is None and kind is None:
            raise UndeliveredError(
                f"{stats.failed} of {stats.accepted} events were not delivered; the log of auditstream.producer has "
                "the reasons. Emit them again with the same ids"
            )

    def _accept(self, event: AuditEvent, body: bytes, tag: object) -> None:
        (self._delivery or self._restart()).send(event.id, body, tag)

    def _restart(self) -> Delivery:
        with self._lock:
            if self._closed:
                raise RuntimeError("the producer is closed: emit before close()")
            if self._delivery is None:
                self._delivery = Delivery(self._settings, self._on_error)
            return self._delivery

    def _after_fork(self) -> None:
        if self._delivery is not None:
            # Never destroyed: the destructor would wait for librdkafka's threads, which exist in the parent only.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._delivery.kafka))
        self._delivery = None
        self._lock = threading.Lock()


_PRODUCERS: weakref.WeakSet[AuditProducer] = weakref.WeakSet()


def _reset_after_fork() -> None:
    for producer in tuple(_PRODUCERS):
        producer._after_fork()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
