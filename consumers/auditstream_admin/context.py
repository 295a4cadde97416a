"""The application context and the dependencies of the routes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from auditstream_admin.auth.access import access_of, viewer_of
from auditstream_admin.auth.oidc import OidcSignIn
from auditstream_admin.auth.rate_limits import RateLimits
from auditstream_admin.auth.self_audit import SelfAudit
from auditstream_admin.auth.sessions import Sessions
from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.events.cursors import Cursors
from auditstream_admin.events.event_store import EventStore
from auditstream_admin.exports.viewer_exports import ViewerExports
from auditstream_admin.settings import AdminSettings
from auditstream_export import ExportJobs


@dataclass(frozen=True, slots=True, kw_only=True)
class AppContext:
    """The objects that all routes share.

    Attributes:
        exports: Export jobs; None if exports are not configured.
        oidc: Sign-in by OpenID Connect; None if it is not configured.
        clock: Nanoseconds since the epoch.
    """

    settings: AdminSettings
    store: EventStore
    cursors: Cursors
    sessions: Sessions
    limits: RateLimits
    audit: SelfAudit
    exports: ExportJobs | None
    oidc: OidcSignIn | None
    clock: Callable[[], int]


def context_of(request: Request) -> AppContext:
    """The context of the application that serves a request."""
    context: AppContext = request.app.state.context
    return context


CurrentViewer = Annotated[Viewer, Depends(viewer_of)]
Context = Annotated[AppContext, Depends(context_of)]


def exports_of(request: Request, viewer: CurrentViewer, context: Context) -> ViewerExports:
    """The exports of the viewer; an `HTTPException` 501 if exports are not configured."""
    if context.exports is None:
        raise HTTPException(501, "exports are not configured: set AUDITSTREAM_EXPORT_TARGET")
    return ViewerExports(context.exports, viewer, access_of(request).origin)


Exports = Annotated[ViewerExports, Depends(exports_of)]
