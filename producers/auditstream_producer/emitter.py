"""What a service calls to emit events, whatever becomes of them."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Self
from uuid import UUID

from uuid_utils.compat import uuid7

from auditstream_producer.outcome import ProducerStats
from auditstream_producer.settings import CatalogMode
from auditstream_schemas.catalog import validate_payload
from auditstream_schemas.codec import encode_body
from auditstream_schemas.event import AuditEvent, Entity, Request


class EventEmitter(ABC):
    """Takes events: `AuditProducer` in service, `CapturingProducer` in tests.

    As a context manager it closes itself at the end of the block.
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
        """Take one event made of Python values, and return its id. Never waits for the network.

        Args:
            action: What happened: lowercase words with dots between, such as ``context.create``.
            actor: Who did it: an `Entity`, or a mapping of id, type, name and attributes side by side.
            target: What it was done to; the same.
            payload: Details of the action, what JSON can hold; None for none.
            occurred_at: A datetime with a zone, ISO-8601 text with a zone, or nanoseconds since 1970; None
                for now.
            metadata: Strings by name.
            id: A UUID; give the same one when the same event is emitted again. None for a new UUIDv7.
            version: Version of the payload's schema.
            scope: The account that owns the target: an `Entity` or a mapping.
            success: Whether the action succeeded.
            request: What caused the event: a `Request`, or a mapping of id and attributes side by side.

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
        """Take one event, and return its id. Never waits for the network.

        Args:
            event: The event.
            tag: Anything; comes back in `DeliveryFailure` and goes nowhere else.

        Raises:
            CatalogError: The payload breaks its action's schema, or in strict mode the action is unlisted.
            QueueFullError: The local queue is full.
            RuntimeError: The emitter is closed.
        """
        if self._catalog_mode != "off":
            validate_payload(event, strict=self._catalog_mode == "strict")
        self._take(event, encode_body(event), tag)
        return event.id

    @abstractmethod
    def flush(self, timeout: float) -> int:
        """Wait, at most ``timeout`` seconds, until every event is delivered or reported as failed.

        Returns:
            How many events are neither yet.
        """

    @abstractmethod
    def close(self, timeout: float | None = None) -> int:
        """Flush, give up and report what is left after ``timeout`` seconds, and take no more events.

        Returns:
            How many events were given up.
        """

    @abstractmethod
    def stats(self) -> ProducerStats:
        """Return the counts of events, all of one moment."""

    @abstractmethod
    def _take(self, event: AuditEvent, body: bytes, tag: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
