"""The authenticated request: its viewer, its auth method, and its origin."""

from dataclasses import dataclass
from typing import Literal

from fastapi import Request

from auditstream_admin.auth.viewer import Viewer
from auditstream_schemas.errors import DeniedError

AuthMethod = Literal["session", "proxy", "token", "none"]

KEY = "auditstream.access"
"""Key of the ASGI scope under which the auth middleware stores the `Access`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The sender and the target of a request, for audit events.

    Attributes:
        request_id: Id of the request, also in the response header X-Request-Id.
        address: IP address of the client.
        user_agent: The header User-Agent, shortened.
        path: Path without the query, shortened.
    """

    request_id: str
    address: str
    user_agent: str
    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The result of authentication.

    Attributes:
        viewer: The authenticated viewer; None on the few paths that need none.
        form_token: CSRF token for the forms of this viewer; empty for API tokens, which need none.
    """

    viewer: Viewer | None
    auth_method: AuthMethod
    form_token: str
    origin: Origin


def access_of(request: Request) -> Access:
    """The access that the auth middleware stored.

    Raises:
        DeniedError: The request did not pass the auth middleware.
    """
    access = request.scope.get(KEY)
    if not isinstance(access, Access):
        raise DeniedError("the request did not pass the auth middleware")
    return access


def viewer_of(request: Request) -> Viewer:
    """The viewer of a request; the dependency of every route that shows events.

    Raises:
        DeniedError: The request has no viewer.
    """
    viewer = access_of(request).viewer
    if viewer is None:
        raise DeniedError("sign in first")
    return viewer
