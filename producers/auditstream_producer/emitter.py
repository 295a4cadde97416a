"""The methods that services call to emit events."""

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
        """Wait, at most ``timeout`` seconds, until every event is delivered or reported as failed.

        Returns:
            How many events are neither; they stay in the queue.
        """

    @abstractmethod
    def close(self, timeout: float | None = None) -> int:
        """Flush, report the remaining events as failed, and accept no more. A second call does nothing.

        Blocks for ``timeout`` seconds and at most about 4 more. None means ``producer_close_timeout``.

        Returns:
            How many events remained; each was reported to ``on_error`` and is counted in `stats`.
        """

    @abstractmethod
    def stats(self) -> ProducerStats:
        """Return the counts of events, all of the same moment."""

    @abstractmethod
    def _accept(self, event: AuditEvent, body: bytes, tag: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
