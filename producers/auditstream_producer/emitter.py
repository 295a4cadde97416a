"""The methods that services call to emit events, and the values that report the outcome."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from uuid_utils.compat import uuid7

from auditstream_producer.settings import CatalogMode
from auditstream_schemas.catalog import validate_payload
from auditstream_schemas.codec import decode_body, encode_body
from auditstream_schemas.event import AuditEvent, Entity, Request


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


class EventEmitter(ABC):
    """Accepts events: `AuditProducer` in a service, `CapturingProducer` in its tests.

    As a context manager it is closed at the end of the block.
    """

    def __init__(self, catalog_mode: CatalogMode) -> None:
        self._catalog_mode = catalog_mode

    def emit(
        self,
        *,
        action: str,
        actor: Entity | Mapping[str, object],
        target: Entity | Mapping[str, object],
        payload: Mapping[str, object] | None = None,
        occurred_at: datetime | str | int | None = None,
        metadata: Mapping[str, str] | None = None,
        id: UUID | str | None = None,
        version: int = 1,
        scope: Entity | Mapping[str, object] | None = None,
        success: bool = True,
        request: Request | Mapping[str, object] | None = None,
    ) -> UUID:
        """Accept one event made of Python values, and return its id. Never waits for the network.

        The arguments are those of `AuditEvent.build`. The default of ``occurred_at`` is now; the default of ``id`` is
        a new UUIDv7. An event that is emitted again needs its first id, or it becomes a second event.

        Raises:
            InvalidEventError: The event breaks the contract; names every field at fault.
            CatalogError: The payload breaks its action's schema, or in strict mode the action is unlisted.
            QueueFullError: The local queue is full.
            RuntimeError: The emitter is closed.
        """
        return self.emit_event(
            AuditEvent.build(
                action=action,
                actor=actor,
                target=target,
                payload=payload,
                occurred_at=time.time_ns() if occurred_at is None else occurred_at,
                metadata=metadata,
                id=uuid7() if id is None else id,
                version=version,
                scope=scope,
                success=success,
                request=request,
            )
        )

    def emit_event(self, event: AuditEvent, *, tag: object = None) -> UUID:
        """Accept one event, and return its id. Never waits for the network.

        Args:
            event: The event.
            tag: Any object; it is returned in `DeliveryFailure` and is not sent.

        Raises:
            CatalogError: The payload breaks its action's schema, or in strict mode the action is unlisted.
            QueueFullError: The local queue is full.
            RuntimeError: The emitter is closed.
        """
        if self._catalog_mode != "off":
            validate_payload(event, strict=self._catalog_mode == "strict")
        self._accept(event, encode_body(event), tag)
        return event.id

    @abstractmethod
    def flush(self, timeout: float) -> int:
        """Wait until every event is delivered or failed, at most ``timeout`` seconds; return how many are neither."""

    @abstractmethod
    def close(self, timeout: float | None = None) -> int:
        """Flush, report the remaining events as failed, and accept no more; return how many remained.

        Blocks for ``timeout`` seconds and at most about 4 more. None means ``producer_close_timeout``. A second call
        does nothing.
        """

    @abstractmethod
    def stats(self) -> ProducerStats:
        """Return the counts of events, all of the same moment."""

    @abstractmethod
    def _accept(self, event: AuditEvent, body: bytes, tag: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
