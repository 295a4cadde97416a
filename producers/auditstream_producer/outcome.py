"""The outcome of emitted events: the counts, and the report of an event that was not delivered."""

from dataclasses import dataclass
from uuid import UUID

from auditstream_schemas.codec import decode_body
from auditstream_schemas.event import AuditEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailure:
    """One accepted event that the broker did not acknowledge.

    The broker may have it nevertheless, because an acknowledgement can be lost. Sending ``event`` again is
    safe: it keeps its id, and the sink drops a second delivery of an id.

    Attributes:
        event_id: Id of the event.
        reason: Why the event was not delivered, in a sentence; contains nothing of the event.
        body: The event, encoded (Avro, without the five leading bytes of the wire format).
        tag: The ``tag`` that was passed to `emit_event`.
    """

    event_id: UUID
    reason: str
    body: bytes
    tag: object = None

    @property
    def event(self) -> AuditEvent:
        """The event, to store it or to send it again; decoded at each call."""
        return decode_body(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerStats:
    """Counts since the producer was made: accepted = delivered + failed + in_queue.

    Attributes:
        accepted: Events that `emit` accepted.
        delivered: Events that the broker acknowledged.
        failed: Events that were reported as not delivered.
    """

    accepted: int = 0
    delivered: int = 0
    failed: int = 0

    @property
    def in_queue(self) -> int:
        """Events that are neither delivered nor failed yet."""
        return self.accepted - self.delivered - self.failed
