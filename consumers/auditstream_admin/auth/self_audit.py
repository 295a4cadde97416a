"""The log of who looked at the log: events of the catalog's ``audit_log.*``, on the same topic as all others."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from uuid_utils.compat import uuid7

from auditstream_admin.auth.access import Origin
from auditstream_admin.auth.viewer import Viewer
from auditstream_schemas.errors import AuditstreamError
from auditstream_schemas.event import AuditEvent, Entity, Request

Emit = Callable[[AuditEvent], object]
"""Takes an event, and never waits for the network; may raise an `AuditstreamError`."""

_logger = logging.getLogger("auditstream.admin")


class SelfAudit:
    """Says what was done here. Never holds a request up, and never fails one: what cannot be emitted is logged."""

    def __init__(self, emit: Emit, *, scope_type: str, clock: Callable[[], int] = time.time_ns) -> None:
        """Nothing is said yet.

        Args:
            emit: Takes the events.
            scope_type: Type of the scopes.
            clock: Nanoseconds since the epoch.
        """
        self._emit = emit
        self._scope_type = scope_type
        self._clock = clock

    def page_viewed(
        self, origin: Origin, viewer: Viewer, page: str, *, wanted: Mapping[str, object], rows: int
    ) -> None:
        """Somebody saw a page of events."""
        payload = {"page": page, "filter": dict(wanted), "rows": rows}
        self._note("audit_log.page.view", origin, viewer, _looked_at(viewer, wanted), payload)

    def api_queried(self, origin: Origin, viewer: Viewer, *, wanted: Mapping[str, object], rows: int) -> None:
        """A program asked for events."""
        payload = {"path": origin.path, "filter": dict(wanted), "rows": rows}
        self._note("audit_log.api.query", origin, viewer, _looked_at(viewer, wanted), payload)

    def denied(self, origin: Origin, viewer: Viewer | None, *, reason: str, status: int) -> None:
        """Somebody was turned away."""
        payload = {"path": origin.path, "method": origin.method, "reason": reason, "status": status}
        scopes = _looked_at(viewer, {}) if viewer is not None else (None,)
        self._note("audit_log.access.deny", origin, viewer, scopes, payload, success=False)

    def signed_in(self, origin: Origin, viewer: Viewer, *, method: str) -> None:
        """Somebody signed in."""
        payload = {"method": method, "role": str(viewer.role), "scopes": list(viewer.scopes)}
        self._note("audit_log.session.create", origin, viewer, _looked_at(viewer, {}), payload)

    def _note(
        self,
        action: str,
        origin: Origin,
        viewer: Viewer | None,
        scopes: Sequence[str | None],
        payload: Mapping[str, object],
        *,
        success: bool = True,
    ) -> None:
        """One event for each scope that it concerns, for each scope's admins are to see it."""
        for scope in scopes:
            try:
                self._emit(
                    AuditEvent.build(
                        action=action,
                        actor=actor_of(viewer),
                        target=Entity(id=scope or "all", type="audit_log"),
                        payload=payload,
                        occurred_at=self._clock(),
                        id=uuid7(),
                        scope=None if scope is None else Entity(id=scope, type=self._scope_type),
                        success=success,
                        request=request_of(origin),
                    )
                )
            except AuditstreamError as error:
                _logger.warning("%s of request %s was not emitted: %s", action, origin.request_id, error)


def request_of(origin: Origin) -> Request:
    """A request as the cause of an event."""
    return Request(id=origin.request_id, attributes={"ip": origin.address, "user_agent": origin.user_agent})


def actor_of(viewer: Viewer | None) -> Entity:
    """A viewer as the actor of an event."""
    if viewer is None:
        return Entity(id="nobody", type="anonymous")
    kind = "api_token" if viewer.subject.startswith("token:") else "user"
    return Entity(id=viewer.subject, type=kind, name=viewer.name, attributes={"role": str(viewer.role)})


def _looked_at(viewer: Viewer, wanted: Mapping[str, object]) -> tuple[str | None, ...]:
    scope = wanted.get("scope")
    if isinstance(scope, str) and viewer.may_see(scope):
        return (scope,)
    return viewer.scopes or (None,)
