"""The audit trail of the page: the catalog's events ``audit_log.*``, on the same topic as all other events."""

import logging
from collections.abc import Mapping
from types import MappingProxyType

from auditstream_admin.auth.access import Origin
from auditstream_admin.auth.viewer import Viewer
from auditstream_schemas.errors import AuditstreamError
from auditstream_schemas.event import Entity, Request
from auditstream_storage import AuditTrail

_logger = logging.getLogger("auditstream.admin")


class SelfAudit(AuditTrail):
    """Emits events about requests. Never delays or fails a request: if an event cannot be emitted, that is logged.

    ``conditions`` are those of the request's filter; ``rows`` is the number of events in the response.
    """

    def page_viewed(
        self, origin: Origin, viewer: Viewer, page: str, *, conditions: Mapping[str, object], rows: int
    ) -> None:
        """A person viewed a page of events."""
        payload = {"page": page, "filter": dict(conditions), "rows": rows}
        self._emit_for("audit_log.page.view", origin, viewer, payload, conditions)

    def api_queried(self, origin: Origin, viewer: Viewer, *, conditions: Mapping[str, object], rows: int) -> None:
        """A program queried events."""
        payload = {"path": origin.path, "filter": dict(conditions), "rows": rows}
        self._emit_for("audit_log.api.query", origin, viewer, payload, conditions)

    def denied(self, origin: Origin, viewer: Viewer | None, *, reason: str, status: int) -> None:
        """A request was denied."""
        payload = {"path": origin.path, "method": origin.method, "reason": reason, "status": status}
        self._emit_for("audit_log.access.deny", origin, viewer, payload, success=False)

    def signed_in(self, origin: Origin, viewer: Viewer, *, method: str) -> None:
        """A person signed in."""
        payload = {"method": method, "role": str(viewer.role), "scopes": list(viewer.scopes)}
        self._emit_for("audit_log.session.create", origin, viewer, payload)

    def _emit_for(
        self,
        action: str,
        origin: Origin,
        viewer: Viewer | None,
        payload: Mapping[str, object],
        conditions: Mapping[str, object] = MappingProxyType({}),
        *,
        success: bool = True,
    ) -> None:
        """Emit an event for the scope in the conditions, else for every scope of the viewer."""
        scopes = () if viewer is None else viewer.scopes
        scope = conditions.get("scope")
        if viewer is not None and isinstance(scope, str) and viewer.may_see(scope):
            scopes = (scope,)
        actor, request = actor_of(viewer), request_of(origin)
        try:
            self.record(action, actor=actor, payload=payload, scopes=scopes, request=request, success=success)
        except AuditstreamError as error:
            _logger.warning("%s of request %s was not emitted: %s", action, origin.request_id, error)


def request_of(origin: Origin) -> Request:
    """The request that caused an event."""
    return Request(id=origin.request_id, attributes={"ip": origin.address, "user_agent": origin.user_agent})


def actor_of(viewer: Viewer | None) -> Entity:
    """The actor of an event: the viewer, or ``nobody`` without a viewer."""
    if viewer is None:
        return Entity(id="nobody", type="anonymous")
    kind = "api_token" if viewer.subject.startswith("token:") else "user"
    return Entity(id=viewer.subject, type=kind, name=viewer.name, attributes={"role": str(viewer.role)})
