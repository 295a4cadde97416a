"""Events about exports, emitted through the producer SDK."""

from collections.abc import Iterator
from contextlib import contextmanager

from auditstream_export.jobs import Emit
from auditstream_producer import AuditProducer, ProducerSettings
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import load

_DELIVERED_WITHIN_SECONDS = 10.0


@contextmanager
def emitting() -> Iterator[Emit]:
    """Emit with the settings of the environment, and wait some seconds for each event to be delivered.

    What is not delivered by then stays in the queue for as long as this process lives.

    Raises:
        SettingsError: A variable is malformed.
    """
    with AuditProducer(load(ProducerSettings)) as producer:

        def emit(event: AuditEvent) -> None:
            producer.emit_event(event)
            producer.flush(_DELIVERED_WITHIN_SECONDS)

        yield emit
