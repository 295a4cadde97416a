"""Emits the events of the audit trail through the producer SDK, with the settings of the environment."""

import logging
from types import TracebackType
from typing import Self

from auditstream_producer import AuditProducer, ProducerSettings
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import load

DELIVERY_SECONDS = 10.0
"""Longest wait for the delivery of an event, for commands and exporters."""

_logger = logging.getLogger("auditstream.admin")


class TrailEmitter:
    """Emits events; a context manager, which sends the queue when it is closed.

    The action of an event has happened already, so it does not fail while the broker is away. An event that is not
    delivered in time stays in the queue. When the emitter is closed, the number of undelivered events is logged.
    """

    def __init__(self, *, wait_seconds: float = 0) -> None:
        """Prepare the producer; raises SettingsError if a variable is malformed.

        Args:
            wait_seconds: Longest wait for the delivery of each event; 0 never blocks on the network.
        """
        self._producer = AuditProducer(load(ProducerSettings))
        self._wait_seconds = wait_seconds

    def __call__(self, event: AuditEvent) -> None:
        """Emit an event; raises QueueFullError if the broker has been away for so long that the queue is full."""
        self._producer.emit_event(event)
        if self._wait_seconds:
            self._producer.flush(self._wait_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Send the queue; blocks for ``producer_close_timeout``, 10 seconds by default."""
        if lost := self._producer.close():
            _logger.warning("%d audit_log.* events were not delivered: the broker or the registry is away", lost)
