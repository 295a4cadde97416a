"""The audit trail of our own actions: events of the catalog's ``audit_log.*``, on the same topic as all others."""

import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID, uuid5

from uuid_utils.compat import uuid7

from auditstream_schemas.event import AuditEvent, Entity, Request

Emit = Callable[[AuditEvent], object]
"""Emits an event; may raise an `AuditstreamError` if it cannot."""


class AuditTrail:
    """Emits one event for each scope that an action concerns, so that the admins of each scope see it.

    Args:
        emit: Emits the events.
        scope_type: Type of the scopes: the setting ``scope_type``.
        clock: Nanoseconds since the epoch.
    """

    def __init__(self, emit: Emit, *, scope_type: str, clock: Callable[[], int] = time.time_ns) -> None:
        self._emit, self._scope_type, self._clock = emit, scope_type, clock

    def record(
        self,
        action: str,
        *,
        actor: Entity,
        payload: Mapping[str, object],
        scopes: Sequence[str],
        target: Entity | None = None,
        request: Request | None = None,
        success: bool = True,
        occurred_at: int | None = None,
        id_from: tuple[UUID, str] | None = None,
    ) -> None:
        """Emit the events of one action, with the fields of `AuditEvent`. Raises the errors of ``emit``.

        Args:
            action: An action of the catalog.
            actor: The user or service that did it.
            payload: The payload of that action.
            scopes: Ids of the scopes that it concerns; empty for one event without a scope.
            target: None for the audit log of the scope.
            request: The request that caused it.
            success: Whether the action succeeded.
            occurred_at: Nanoseconds since the epoch; None for now.
            id_from: Namespace and name of ids that are the same when the action is recorded again; None for new ids.
        """
        for scope in scopes or (None,):
            self._emit(
                AuditEvent.build(
                    action=action,
                    actor=actor,
                    target=target or Entity(id=scope or "all", type="audit_log"),
                    payload=payload,
                    occurred_at=self._clock() if occurred_at is None else occurred_at,
                    id=uuid7() if id_from is None else uuid5(id_from[0], f"{id_from[1]} {scope or ''}"),
                    scope=None if scope is None else Entity(id=scope, type=self._scope_type),
                    success=success,
                    request=request,
                )
            )
