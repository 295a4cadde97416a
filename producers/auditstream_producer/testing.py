"""A producer without a broker for the tests of services. It checks and encodes like the real one."""

from auditstream_producer.emitter import EventEmitter, ProducerStats
from auditstream_producer.settings import CatalogMode
from auditstream_schemas.codec import decode_body
from auditstream_schemas.errors import QueueFullError
from auditstream_schemas.event import AuditEvent


class CapturingProducer(EventEmitter):
    """Replaces `AuditProducer` in tests, and collects the events.

    It refuses the events that `AuditProducer` refuses, with the same errors.

    Attributes:
        events: The emitted events in order, each as a reader of the topic decodes it.
    """

    def __init__(self, *, catalog_mode: CatalogMode = "known", queue_events: int | None = None) -> None:
        """Start with no events.

        Args:
            catalog_mode: As in `ProducerSettings`.
            queue_events: Events to accept before `QueueFullError`, to test how a service handles it; None for
                no limit.
        """
        super().__init__(catalog_mode)
        self.events: list[AuditEvent] = []
        self._queue_events = queue_events
        self._closed = False

    def flush(self, timeout: float) -> int:  # noqa: ARG002 - nothing is waiting
        """Return 0: every event is delivered at once."""
        return 0

    def close(self, timeout: float | None = None) -> int:  # noqa: ARG002 - nothing is waiting
        """Accept no more events, and return 0."""
        self._closed = True
        return 0

    def stats(self) -> ProducerStats:
        """Return the counts of events: all delivered."""
        return ProducerStats(accepted=len(self.events), delivered=len(self.events))

    def _accept(self, event: AuditEvent, body: bytes, tag: object) -> None:  # noqa: ARG002 - nothing fails here
        if self._closed:
            raise RuntimeError("the producer is closed: emit before close()")
        if self._queue_events is not None and len(self.events) >= self._queue_events:
            raise QueueFullError(f"the local queue is full: CapturingProducer has {self._queue_events} events")
        self.events.append(decode_body(body))
