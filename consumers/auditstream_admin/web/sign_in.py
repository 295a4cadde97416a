"""Signing in and out."""

import os
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from auditstream_admin.auth.access import access_of
from auditstream_admin.auth.claims import ClaimRules
from auditstream_admin.auth.oidc import OidcSignIn
from auditstream_admin.auth.sessions import Session, cookie
from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.context import AppContext, parts_of
from auditstream_admin.web import pages
from auditstream_schemas.errors import DeniedError

router = APIRouter()

_HOME = "/"
_FLOW_SECONDS = 600


def own_path(text: str | None) -> str:
    """Where to go after the sign-in: a path of this page, whatever a link says."""
    if not text or not text.startswith("/") or text.startswith(("//", "/\\", "/login", "/logout")):
        return _HOME
    if any(character in text for character in "\r\n\t\\") or not text.isprintable():
        return _HOME
    return text


@router.get("/login")
def login(request: Request, next: str | None = None) -> Response:
    """The page that leads to the sign-in."""
    parts = parts_of(request)
    return pages.render(
        request, "login.html", method=parts.settings.admin_sign_in, onwards=own_path(next), roles=[*Role]
    )


@router.post("/login/development")
def login_development(
    request: Request,
    role: Annotated[Role, Form()],
    scopes: Annotated[str, Form(max_length=2000)] = "",
    onwards: Annotated[str, Form(max_length=8000)] = _HOME,
) -> Response:
    """Be whoever one says: for the local stack alone."""
    parts = parts_of(request)
    if parts.settings.admin_sign_in != "development":
        raise DeniedError("there is no development login here")
    wanted = tuple(scope.strip() for scope in scopes.split(",") if scope.strip())
    if role is Role.ADMIN and not wanted:
        raise DeniedError("an admin needs the id of an organisation")
    name = os.environ.get("USER") or "developer"
    viewer = Viewer(subject=f"development:{name}", name=name, role=role, scopes=wanted)
    return begin_session(request, parts, viewer, onwards, method="development")


@router.post("/logout")
def logout(request: Request) -> Response:
    """End the session of this browser."""
    response = RedirectResponse("/login", status_code=303)
    response.headers.append("set-cookie", parts_of(request).sessions.end())
    return response


def begin_session(request: Request, parts: AppContext, viewer: Viewer, onwards: str, *, method: str) -> Response:
    """Let somebody in."""
    session = Session.begin(viewer, parts.clock() // 1_000_000_000)
    parts.audit.signed_in(access_of(request).origin, viewer, method=method)
    response = RedirectResponse(own_path(onwards), status_code=303)
    response.headers.append("set-cookie", parts.sessions.write(session))
    return response


@router.get("/login/start")
async def login_start(request: Request, next: str | None = None) -> Response:
    """Go to the issuer."""
    parts = parts_of(request)
    begun = await _oidc(parts).begin(own_path(next))
    response = RedirectResponse(begun.url, status_code=303)
    flow = cookie(_flow_name(parts), begun.state, seconds=_FLOW_SECONDS, is_secure=parts.is_secure)
    response.headers.append("set-cookie", flow)
    return response


@router.get("/login/callback")
async def login_callback(
    request: Request, state: str = "", code: str | None = None, error: str | None = None
) -> Response:
    """Come back from the issuer."""
    parts = parts_of(request)
    if code is None:
        raise DeniedError(f"the issuer refused the sign-in: {(error or 'it gave no code')[:80]}")
    claims, onwards = await _oidc(parts).finish(code, state, request.cookies.get(_flow_name(parts), ""))
    viewer = ClaimRules.of(parts.settings).viewer(claims)
    response = begin_session(request, parts, viewer, onwards, method="oidc")
    response.headers.append("set-cookie", cookie(_flow_name(parts), "", seconds=0, is_secure=parts.is_secure))
    return response


def _oidc(parts: AppContext) -> OidcSignIn:
    if parts.oidc is None:
        raise DeniedError("nobody signs in by OpenID Connect here")
    return parts.oidc


def _flow_name(parts: AppContext) -> str:
    return "__Host-auditstream-sign-in" if parts.is_secure else "auditstream-sign-in"
