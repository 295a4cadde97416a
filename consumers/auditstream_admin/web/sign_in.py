"""Routes for signing in and out."""

import os
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from auditstream_admin.auth.access import access_of
from auditstream_admin.auth.oidc import OidcSignIn
from auditstream_admin.auth.sessions import Session, cookie
from auditstream_admin.auth.viewer import Role, Viewer, viewer_of_claims
from auditstream_admin.context import AppContext, Context
from auditstream_admin.web import pages
from auditstream_schemas.errors import DeniedError
from auditstream_schemas.timestamp import NANOSECONDS

router = APIRouter()

_HOME = "/"
_STATE_SECONDS = 600


def own_path(text: str | None) -> str:
    """The path to open after the sign-in; the home page for everything that is not a path of this page."""
    if not text or not text.isprintable() or "\\" in text:
        return _HOME
    return text if text.startswith("/") and not text.startswith(("//", "/login", "/logout")) else _HOME


@router.get("/login")
def login(request: Request, context: Context, next: str | None = None) -> Response:
    """The sign-in page."""
    return pages.render(
        request, "login.html", method=context.settings.admin_sign_in, next_path=own_path(next), roles=[*Role]
    )


@router.post("/login/development")
def login_development(
    request: Request,
    context: Context,
    role: Annotated[Role, Form()],
    scopes: Annotated[str, Form(max_length=2000)] = "",
    next_path: Annotated[str, Form(max_length=8000)] = _HOME,
) -> Response:
    """Sign in with a chosen role, without a password; for the local stack only."""
    if context.settings.admin_sign_in != "development":
        raise DeniedError("the development sign-in is off")
    ids = tuple(scope.strip() for scope in scopes.split(",") if scope.strip())
    if role is Role.ADMIN and not ids:
        raise DeniedError("an admin needs the id of an organisation")
    name = os.environ.get("USER") or "developer"
    viewer = Viewer(subject=f"development:{name}", name=name, role=role, scopes=ids)
    return begin_session(request, context, viewer, next_path, method="development")


@router.post("/logout")
def logout(context: Context) -> Response:
    """End the session of this browser."""
    response = RedirectResponse("/login", status_code=303)
    response.headers.append("set-cookie", context.sessions.end())
    return response


def begin_session(request: Request, context: AppContext, viewer: Viewer, next_path: str, *, method: str) -> Response:
    """Start a session, and open the next page."""
    now = context.clock() // NANOSECONDS
    session = Session(viewer=viewer, began=now, used=now)
    context.audit.signed_in(access_of(request).origin, viewer, method=method)
    response = RedirectResponse(own_path(next_path), status_code=303)
    response.headers.append("set-cookie", context.sessions.write(session))
    return response


@router.get("/login/start")
async def login_start(context: Context, next: str | None = None) -> Response:
    """Redirect to the OpenID Connect issuer."""
    url, state = await _oidc(context).begin(own_path(next))
    response = RedirectResponse(url, status_code=303)
    response.headers.append("set-cookie", _state_cookie(context, state, seconds=_STATE_SECONDS))
    return response


@router.get("/login/callback")
async def login_callback(
    request: Request, context: Context, state: str = "", code: str | None = None, error: str | None = None
) -> Response:
    """The redirect back from the issuer."""
    if code is None:
        raise DeniedError(f"the issuer refused the sign-in: {(error or 'it sent no code')[:80]}")
    signed_state = request.cookies.get(_state_name(context), "")
    claims, next_path = await _oidc(context).finish(code, state, signed_state)
    response = begin_session(request, context, viewer_of_claims(claims, context.settings), next_path, method="oidc")
    response.headers.append("set-cookie", _state_cookie(context, "", seconds=0))
    return response


def _oidc(context: AppContext) -> OidcSignIn:
    if context.oidc is None:
        raise DeniedError("the sign-in by OpenID Connect is off")
    return context.oidc


def _state_name(context: AppContext) -> str:
    return f"{context.sessions.name}-sign-in"


def _state_cookie(context: AppContext, state: str, *, seconds: int) -> str:
    return cookie(_state_name(context), state, seconds=seconds, is_secure=context.sessions.is_secure)
