"""What becomes of events: counts, and the report of one that was not delivered."""

from dataclasses import dataclass
from uuid import UUID

from auditstream_schemas.codec import decode_body
from auditstream_schemas.event import AuditEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailure:
    """One accepted event that the broker did not acknowledge.

    It may have arrived all the same (an acknowledgement can be lost). Sending ``event`` again is safe: it
    keeps its id, and a second delivery of an id is dropped by the sink.

    Attributes:
        event_id: Id of the event.
        reason: Why it was given up, in a sentence; holds nothing of the event.
        body: The event, encoded (Avro, without the five leading bytes of the wire format).
        tag: What was given to `emit_event` as ``tag``.
    """

    event_id: UUID
    reason: str
    body: bytes
    tag: object = None

    @property
    def event(self) -> AuditEvent:
        """The event itself, to keep or to send again; decoded at each call."""
        return decode_body(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerStats:
    """Counts since the producer was made: accepted = delivered + failed + in_queue.

    Attributes:
        accepted: Events that `emit` took.
        delivered: Events that the broker acknowledged.
        failed: Events given up; each was reported.
    """

    accepted: int = 0
    delivered: int = 0
    failed: int = 0

    @property
    def in_queue(self) -> int:
        """Events that are neither delivered nor given up yet."""
        return self.accepted - self.delivered - self.failed
