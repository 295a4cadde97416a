"""What is known of a request: who sends it, how they showed it, from where."""

from dataclasses import dataclass
from typing import Literal

from fastapi import Request

from auditstream_admin.auth.viewer import Viewer
from auditstream_schemas.errors import DeniedError

Means = Literal["session", "proxy", "token", "nothing"]

KEY = "auditstream.access"
"""Where the gate leaves it in the ASGI scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a request comes from.

    Attributes:
        request_id: Its own id, also in the answer's header X-Request-Id.
        address: Of the client.
        user_agent: What it calls itself, cut.
        method: GET or the like.
        path: Without the query, cut.
    """

    request_id: str
    address: str
    user_agent: str
    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who sends a request.

    Attributes:
        viewer: Who; None on the few pages that need nobody.
        means: How they showed it.
        form_token: What their forms must carry; empty for tokens, which no browser sends by itself.
        origin: Where the request comes from.
    """

    viewer: Viewer | None
    means: Means
    form_token: str
    origin: Origin


def access_of(request: Request) -> Access:
    """What the gate found out.

    Raises:
        DeniedError: The request did not come through the gate.
    """
    access = request.scope.get(KEY)
    if not isinstance(access, Access):
        raise DeniedError("the request did not come through the gate")
    return access


def viewer_of(request: Request) -> Viewer:
    """Who sends a request; the dependency of every route that shows events.

    Raises:
        DeniedError: Nobody.
    """
    viewer = access_of(request).viewer
    if viewer is None:
        raise DeniedError("sign in first")
    return viewer
