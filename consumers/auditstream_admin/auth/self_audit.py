"""The audit trail of the page: events of the catalog's ``audit_log.*``, on the same topic as all others."""

import logging
from collections.abc import Mapping, Sequence

from auditstream_admin.auth.access import Origin
from auditstream_admin.auth.viewer import Viewer
from auditstream_schemas.errors import AuditstreamError
from auditstream_schemas.event import Entity, Request
from auditstream_storage import AuditTrail

_logger = logging.getLogger("auditstream.admin")


class SelfAudit(AuditTrail):
    """Emits what is done on the page. Never delays or fails a request: an event that cannot be emitted is logged."""

    def page_viewed(
        self, origin: Origin, viewer: Viewer, page: str, *, wanted: Mapping[str, object], rows: int
    ) -> None:
        """A person saw a page of events."""
        payload = {"page": page, "filter": dict(wanted), "rows": rows}
        self._note("audit_log.page.view", origin, viewer, _scopes_of(viewer, wanted), payload)

    def api_queried(self, origin: Origin, viewer: Viewer, *, wanted: Mapping[str, object], rows: int) -> None:
        """A program queried events."""
        payload = {"path": origin.path, "filter": dict(wanted), "rows": rows}
        self._note("audit_log.api.query", origin, viewer, _scopes_of(viewer, wanted), payload)

    def denied(self, origin: Origin, viewer: Viewer | None, *, reason: str, status: int) -> None:
        """A request was denied."""
        payload = {"path": origin.path, "method": origin.method, "reason": reason, "status": status}
        scopes = () if viewer is None else _scopes_of(viewer, {})
        self._note("audit_log.access.deny", origin, viewer, scopes, payload, success=False)

    def signed_in(self, origin: Origin, viewer: Viewer, *, method: str) -> None:
        """A person signed in."""
        payload = {"method": method, "role": str(viewer.role), "scopes": list(viewer.scopes)}
        self._note("audit_log.session.create", origin, viewer, _scopes_of(viewer, {}), payload)

    def _note(
        self,
        action: str,
        origin: Origin,
        viewer: Viewer | None,
        scopes: Sequence[str],
        payload: Mapping[str, object],
        *,
        success: bool = True,
    ) -> None:
        try:
            self.record(
                action,
                actor=actor_of(viewer),
                payload=payload,
                scopes=scopes,
                request=request_of(origin),
                success=success,
            )
        except AuditstreamError as error:
            _logger.warning("%s of request %s was not emitted: %s", action, origin.request_id, error)


def request_of(origin: Origin) -> Request:
    """The request that caused an event."""
    return Request(id=origin.request_id, attributes={"ip": origin.address, "user_agent": origin.user_agent})


def actor_of(viewer: Viewer | None) -> Entity:
    """The actor of an event: a viewer, or nobody."""
    if viewer is None:
        return Entity(id="nobody", type="anonymous")
    kind = "api_token" if viewer.subject.startswith("token:") else "user"
    return Entity(id=viewer.subject, type=kind, name=viewer.name, attributes={"role": str(viewer.role)})


def _scopes_of(viewer: Viewer, wanted: Mapping[str, object]) -> tuple[str, ...]:
    """The scopes that a request concerns: the one of its filter, else all of the viewer."""
    scope = wanted.get("scope")
    return (scope,) if isinstance(scope, str) and viewer.may_see(scope) else viewer.scopes
