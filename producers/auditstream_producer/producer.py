"""The producer that services use."""

import atexit
import ctypes
import os
import threading
import weakref
from types import TracebackType
from typing import Self

from auditstream_producer.delivery import Delivery, OnError
from auditstream_producer.emitter import EventEmitter
from auditstream_producer.outcome import ProducerStats
from auditstream_producer.settings import ProducerSettings
from auditstream_schemas.errors import UndeliveredError
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import load


class AuditProducer(EventEmitter):
    """Emits audit events to Kafka. Safe to share between threads; make one per process and keep it.

    `emit` never waits for the network: events wait in a bounded queue in memory until the broker and the
    registry are there. What is promised when it returns, and what is not, is in the package's README.

    After ``os.fork`` the parent delivers what it had taken; the child starts with an empty queue and a
    connection of its own at its first `emit`. At interpreter exit a producer that was not closed is closed.
    """

    def __init__(self, settings: ProducerSettings, *, on_error: OnError | None = None) -> None:
        """Start the background thread. Neither the broker nor the registry need be there.

        Args:
            settings: Where events go, and how long and how many may wait.
            on_error: Called once for every accepted event that was not delivered, on whatever thread found
                out (also the one inside `emit` or `close`). It must be quick and must not call `flush` or
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
        """Wait, at most ``timeout`` seconds, until every event is delivered or reported as failed.

        Returns:
            How many events are neither yet; they stay in the queue.
        """
        delivery = self._delivery
        return 0 if delivery is None else delivery.flush(timeout)

    def close(self, timeout: float | None = None) -> int:
        """Flush, give up and report what is left, and stop the background thread.

        Blocks for ``timeout`` seconds and at most some 4 more. Closing twice does nothing.

        Args:
            timeout: Seconds to wait for the events in the queue; None for ``producer_close_timeout``.

        Returns:
            How many events were given up; each was reported to ``on_error`` and is counted in `stats`.
        """
        atexit.unregister(self.close)
        with self._lock:
            self._closed = True
            delivery = self._delivery
        if delivery is None:
            return 0
        return delivery.close(self._settings.producer_close_timeout if timeout is None else timeout)

    def stats(self) -> ProducerStats:
        """Return the counts of events, all of one moment; those of this process alone after a fork."""
        delivery = self._delivery
        return ProducerStats() if delivery is None else delivery.stats()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close.

        Raises:
            UndeliveredError: Events failed, no ``on_error`` was told, and the block raised nothing itself.
        """
        self.close()
        failed = self.stats().failed
        if failed and self._on_error is None and kind is None:
            raise UndeliveredError(
                f"{failed} of {self.stats().accepted} events were not delivered; the log of "
                "auditstream.producer says why. Emit them again with the same ids"
            )

    def _take(self, event: AuditEvent, body: bytes, tag: object) -> None:
        delivery = self._delivery
        if delivery is None:
            delivery = self._restart()
        delivery.send(event.id, body, tag)

    def _restart(self) -> Delivery:
        with self._lock:
            if self._closed:
                raise RuntimeError("the producer is closed: emit before close()")
            if self._delivery is None:
                self._delivery = Delivery(self._settings, self._on_error)
            return self._delivery

    def _after_fork(self) -> None:
        if self._delivery is not None:
            # The threads of librdkafka stayed with the parent, and its destructor would wait for them.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._delivery.kafka))
        self._delivery = None
        self._lock = threading.Lock()


_PRODUCERS: weakref.WeakSet[AuditProducer] = weakref.WeakSet()


def _forget_after_fork() -> None:
    for producer in tuple(_PRODUCERS):
        producer._after_fork()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
