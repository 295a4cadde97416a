"""Routes for signing in and out."""

import os
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from auditstream_admin.auth.access import access_of
from auditstream_admin.auth.claims import viewer_of_claims
from auditstream_admin.auth.oidc import OidcSignIn
from auditstream_admin.auth.sessions import Session, cookie
from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.context import AppContext, Context
from auditstream_admin.web import pages
from auditstream_schemas.errors import DeniedError

router = APIRouter()

_HOME = "/"
_FLOW_SECONDS = 600


def own_path(text: str | None) -> str:
    """The path to open after the sign-in; the home page for everything that is not a path of this page."""
    if not text or not text.startswith("/") or text.startswith(("//", "/\\", "/login", "/logout")):
        return _HOME
    if any(character in text for character in "\r\n\t\\") or not text.isprintable():
        return _HOME
    return text


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
    session = Session.begin(viewer, context.clock() // 1_000_000_000)
    context.audit.signed_in(access_of(request).origin, viewer, method=method)
    response = RedirectResponse(own_path(next_path), status_code=303)
    response.headers.append("set-cookie", context.sessions.write(session))
    return response


@router.get("/login/start")
async def login_start(context: Context, next: str | None = None) -> Response:
    """Redirect to the OpenID Connect issuer."""
    begun = await _oidc(context).begin(own_path(next))
    response = RedirectResponse(begun.url, status_code=303)
    flow = cookie(_flow_name(context), begun.state, seconds=_FLOW_SECONDS, is_secure=context.is_secure)
    response.headers.append("set-cookie", flow)
    return response


@router.get("/login/callback")
async def login_callback(
    request: Request, context: Context, state: str = "", code: str | None = None, error: str | None = None
) -> Response:
    """The redirect back from the issuer."""
    if code is None:
        raise DeniedError(f"the issuer refused the sign-in: {(error or 'it sent no code')[:80]}")
    claims, next_path = await _oidc(context).finish(code, state, request.cookies.get(_flow_name(context), ""))
    viewer = viewer_of_claims(claims, context.settings)
    response = begin_session(request, context, viewer, next_path, method="oidc")
    response.headers.append("set-cookie", cookie(_flow_name(context), "", seconds=0, is_secure=context.is_secure))
    return response


def _oidc(context: AppContext) -> OidcSignIn:
    if context.oidc is None:
        raise DeniedError("the sign-in by OpenID Connect is off")
    return context.oidc


def _flow_name(context: AppContext) -> str:
    return "__Host-auditstream-sign-in" if context.is_secure else "auditstream-sign-in"
