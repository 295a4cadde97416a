"""Events about the audit log itself, sent by the SDK like any other service's."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from auditstream_producer import AuditProducer, ProducerSettings
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import load

_logger = logging.getLogger("auditstream.admin")


class OperatorEmit(Protocol):
    """Emits what an operator did with a command."""

    def __call__(
        self,
        *,
        action: str,
        actor: Mapping[str, str],
        target: Mapping[str, str],
        payload: Mapping[str, object],
        scopes: Sequence[str],
    ) -> None:
        """Take one event for each scope that it concerns; without a scope if there is none."""


class SelfEmitter:
    """Emits the page's own events: as a background, which never holds a request up while the broker is away."""

    def __init__(self, settings: ProducerSettings) -> None:
        self._producer = AuditProducer(settings)

    def __call__(self, event: AuditEvent) -> None:
        """Take an event; never waits for the network.

        Raises:
            QueueFullError: The broker has been away for so long that the queue is full.
        """
        self._producer.emit_event(event)

    def close(self) -> None:
        """Send what waits; blocks 10 seconds at most by default."""
        lost = self._producer.close()
        if lost:
            _logger.warning("%d events about the page itself were not delivered", lost)


@contextmanager
def operator_emitter() -> Iterator[OperatorEmit]:
    """A producer for one command, which goes on also where nothing is delivered in ``producer_close_timeout``."""
    producer = AuditProducer(load(ProducerSettings))

    def emit(
        *,
        action: str,
        actor: Mapping[str, str],
        target: Mapping[str, str],
        payload: Mapping[str, object],
        scopes: Sequence[str],
    ) -> None:
        for scope in scopes or (None,):
            producer.emit(
                action=action,
                actor=actor,
                target=target,
                payload=payload,
                scope=None if scope is None else {"id": scope, "type": "organization"},
            )

    try:
        yield emit
    finally:
        if producer.close():
            _logger.warning("the event about this was not delivered: the broker or the registry is away")
