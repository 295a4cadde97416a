"""What the routes share."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from auditstream_admin.auth.oidc import OidcSignIn
from auditstream_admin.auth.rate_limits import RateLimits
from auditstream_admin.auth.self_audit import SelfAudit
from auditstream_admin.auth.sessions import Sessions
from auditstream_admin.events.cursors import Cursors
from auditstream_admin.events.event_store import EventStore
from auditstream_admin.exports.service import ExportService
from auditstream_admin.settings import AdminSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class AppContext:
    """What the routes share.

    Attributes:
        settings: What the page was told.
        url: Its address as browsers have it.
        store: Reads events.
        cursors: Writes and reads cursors.
        sessions: Writes and reads session cookies.
        limits: Counts requests.
        audit: Says who looked at what.
        exports: Runs exports; None shows none.
        oidc: Signs people in by OpenID Connect; None if they sign in otherwise.
        clock: Nanoseconds since the epoch.
    """

    settings: AdminSettings
    url: str
    store: EventStore
    cursors: Cursors
    sessions: Sessions
    limits: RateLimits
    audit: SelfAudit
    exports: ExportService | None
    oidc: OidcSignIn | None
    clock: Callable[[], int]

    @property
    def is_secure(self) -> bool:
        """Whether the page is reached over https."""
        return self.url.startswith("https:")


def parts_of(request: Request) -> AppContext:
    """What was put together when the page started."""
    parts: AppContext = request.app.state.parts
    return parts
