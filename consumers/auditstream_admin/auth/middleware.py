"""ASGI middleware that authenticates every request before routing.

Only `OPEN_PATHS` and `STATIC_PREFIX` are served without a viewer. A route that is added later is therefore closed by
default, and an unauthenticated client cannot find out which paths exist.
"""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from anyio import to_thread
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditstream_admin.auth.access import KEY, Access, AuthMethod, Origin
from auditstream_admin.auth.proxy_assertion import ProxyAssertions
from auditstream_admin.auth.rate_limits import RateLimits
from auditstream_admin.auth.self_audit import SelfAudit
from auditstream_admin.auth.sessions import Forms, Session, Sessions
from auditstream_admin.auth.tokens import TokenStore
from auditstream_admin.auth.viewer import Viewer
from auditstream_schemas.errors import AdminError, DeniedError

HEALTH = "/healthz"
OPEN_PATHS = frozenset({HEALTH, "/login", "/login/start", "/login/callback", "/login/development"})
STATIC_PREFIX = "/static/"

_WRITE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_MAX_FORM_BYTES = 64 * 1024
_MAX_TEXT = 512
_CHALLENGE = {"www-authenticate": "Bearer"}

_SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AuthMiddleware:
    """Authenticates requests, limits their rate, checks CSRF tokens, and adds security headers to every response.

    The auth methods are API tokens (for the API only), and assertions of a proxy or, without a proxy, session cookies.
    ``url`` is the public address of the page, without a path.
    """

    app: ASGIApp
    sessions: Sessions
    forms: Forms
    tokens: TokenStore
    proxy: ProxyAssertions | None
    url: str
    limits: RateLimits
    audit: SelfAudit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or respond to it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        origin = _origin(request)
        headers = {**_SECURITY_HEADERS, "x-request-id": origin.request_id, "cache-control": "no-store"}
        if self.url.startswith("https:"):
            headers["strict-transport-security"] = "max-age=31536000"
        respond = _with_headers(send, headers)
        try:
            access, session = await self._authenticate(request, origin)
            if access.viewer is not None and access.auth_method != "token" and origin.method in _WRITE_METHODS:
                receive = await self._check_form(request, _holder(access.viewer, session))
        except HTTPException as error:
            await _refused(request, error, origin)(scope, receive, respond)
            return
        scope[KEY] = access
        if session is not None and (renewed := self.sessions.renewed(session, int(time.time()))) is not None:
            headers["set-cookie"] = self.sessions.write(renewed)
        await self.app(scope, receive, respond)

    async def _authenticate(self, request: Request, origin: Origin) -> tuple[Access, Session | None]:
        path = request.scope["path"]
        if path != HEALTH and request.headers.get("host", "") != urlsplit(self.url).netloc:
            # Against DNS rebinding: another site can make its own name resolve to this machine.
            raise HTTPException(HTTPStatus.MISDIRECTED_REQUEST, f"this page is at {self.url}")
        is_static = path == HEALTH or path.startswith(STATIC_PREFIX)
        is_open = is_static or path in OPEN_PATHS
        viewer: Viewer | None = None
        method: AuthMethod = "none"
        session: Session | None = None
        try:
            viewer, method, session = await self._viewer(request)
        except DeniedError as error:
            if not is_open:
                self._audit_denial(origin, str(error))
                self._limit(self.limits.address(origin.address))
                raise HTTPException(HTTPStatus.UNAUTHORIZED, str(error), _CHALLENGE) from error
        except AdminError as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        if viewer is not None:
            self._limit(self.limits.viewer(viewer.subject))
            token = "" if method == "token" else self.forms.token(_holder(viewer, session))
            return Access(viewer=viewer, auth_method=method, form_token=token, origin=origin), session
        if not is_static:
            self._limit(self.limits.address(origin.address))
        if not is_open:
            if not _is_page(request):
                self._audit_denial(origin, "the request has no credentials")
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "sign in first", _CHALLENGE)
        if origin.method in _WRITE_METHODS:
            self._check_same_origin(request)
        return Access(viewer=None, auth_method="none", form_token="", origin=origin), None

    async def _viewer(self, request: Request) -> tuple[Viewer | None, AuthMethod, Session | None]:
        """The viewer of a request, None if it carries no credentials.

        Raises:
            DeniedError: The credentials are not valid.
        """
        authorization = request.headers.get("authorization")
        if authorization is not None and request.scope["path"].startswith("/api/"):
            scheme, _, text = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise DeniedError("send the token as: Authorization: Bearer TOKEN")
            return await to_thread.run_sync(self.tokens.viewer, text.strip()), "token", None
        if self.proxy is not None:
            text = request.headers.get(self.proxy.header, "")
            if not text:
                return None, "none", None
            return await to_thread.run_sync(self.proxy.viewer, text), "proxy", None
        session = self.sessions.read(request.cookies.get(self.sessions.name), int(time.time()))
        return (None, "none", None) if session is None else (session.viewer, "session", session)

    async def _check_form(self, request: Request, holder: str) -> Receive:
        """Check the CSRF token of a request; return the request body, to be read again."""
        self._check_same_origin(request)
        token, receive = request.headers.get("x-csrf-token", ""), request.receive
        if not token and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            body = await _body(request)
            token = parse_qs(body.decode("latin-1")).get("csrf", [""])[0]
            receive = _replay(body, receive)
        if not self.forms.is_valid(token, holder):
            raise HTTPException(HTTPStatus.FORBIDDEN, "the form has expired: reload its page and send it again")
        return receive

    def _check_same_origin(self, request: Request) -> None:
        """Refuse requests that a browser marks as sent by another site. Other clients send no such headers."""
        site = request.headers.get("sec-fetch-site", "none")
        sender = request.headers.get("origin", self.url)
        if site not in {"same-origin", "none"} or sender != self.url:
            raise HTTPException(HTTPStatus.FORBIDDEN, "another site sent this request")

    @staticmethod
    def _limit(wait: int) -> None:
        if wait:
            detail = f"too many requests: wait {wait} s"
            raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, detail, {"retry-after": str(wait)})

    def _audit_denial(self, origin: Origin, reason: str) -> None:
        if self.limits.allows_denial_event(origin.address):
            self.audit.denied(origin, None, reason=reason, status=HTTPStatus.UNAUTHORIZED)


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """Add headers to the response, unless the response has them already."""

    async def respond(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = MutableHeaders(scope=message)
            for name, value in headers.items():
                own.setdefault(name, value)
        await send(message)

    return respond


def _refused(request: Request, error: HTTPException, origin: Origin) -> Response:
    if error.status_code != HTTPStatus.UNAUTHORIZED or not _is_page(request):
        return problem(error.status_code, error.detail, headers=error.headers, request_id=origin.request_id)
    if "hx-request" in request.headers:
        # htmx would put the sign-in into a part of the page; this header makes the whole page go there.
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"hx-redirect": "/login"})
    query = request.scope["query_string"].decode("latin-1")
    next_path = quote(request.scope["path"] + (f"?{query}" if query else ""), safe="")
    return Response(status_code=HTTPStatus.SEE_OTHER, headers={"location": f"/login?next={next_path}"})


def _is_page(request: Request) -> bool:
    """Whether a browser opens a page: it is redirected to the sign-in, and that is no denial to be audited."""
    return request.method == "GET" and not request.scope["path"].startswith("/api/")


def _holder(viewer: Viewer, session: Session | None) -> str:
    """The holder of a CSRF token: a token of another viewer or of an earlier session is not valid."""
    return f"{viewer.subject}\0{0 if session is None else session.began}"


def _origin(request: Request) -> Origin:
    return Origin(
        request_id=secrets.token_hex(8),
        address=request.client.host if request.client else "unknown",
        user_agent=_plain(request.headers.get("user-agent", "")),
        method=request.method,
        path=_plain(request.scope["path"]),
    )


def _plain(text: str) -> str:
    """Text that is valid in an event, shortened."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")[:_MAX_TEXT]


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_FORM_BYTES:
                detail = f"the form is larger than {_MAX_FORM_BYTES} bytes"
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the request was cut off") from None
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """A response with a problem document (RFC 9457); extra members follow the standard ones."""
    document = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, **members}
    body = json.dumps(document, ensure_ascii=False).encode()
    return Response(body, status, headers=headers, media_type="application/problem+json")
