"""The gate: every request comes through here, and none passes without a viewer but on the few open paths.

It runs before the routes are looked at, so a route that is added later is closed, and a path that is not there says
nothing to those who may not ask.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, urlsplit

from anyio import to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditstream_admin.auth.access import KEY, Access, Means, Origin
from auditstream_admin.auth.problems import MEDIA_TYPE, problem_body
from auditstream_admin.auth.rate_limits import RateLimits
from auditstream_admin.auth.self_audit import SelfAudit
from auditstream_admin.auth.sessions import Forms, Session, Sessions
from auditstream_admin.auth.viewer import Viewer
from auditstream_schemas.errors import AdminError, DeniedError

FromText = Callable[[str], Viewer]
"""Who a token or an assertion speaks for; may block on the network; raises `DeniedError`."""

HEALTH = "/healthz"
OPEN_PATHS = frozenset({HEALTH, "/login", "/login/start", "/login/callback", "/login/development"})
OPEN_FOLDER = "/static/"
"""Paths that need nobody: health, signing in, and the files of the page itself."""

_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_FORM_BYTES = 64 * 1024
_CUT = 512

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthMethods:
    """How somebody may show who they are.

    Attributes:
        sessions: Cookies of those who signed in.
        forms: What their forms carry.
        token: Who a bearer token speaks for, on the API alone.
        assertion_header: Name of the proxy's header, lower case; None without a proxy.
        assertion: Who the proxy's header speaks for.
        url: The page's address as browsers have it, without a path.
    """

    sessions: Sessions
    forms: Forms
    token: FromText
    assertion_header: str | None
    assertion: FromText | None
    url: str

    @property
    def is_secure(self) -> bool:
        """Whether the page is reached over https."""
        return self.url.startswith("https:")

    @property
    def host(self) -> str:
        """The host, with its port, that browsers ask for."""
        return urlsplit(self.url).netloc


class _Refusal(Exception):  # noqa: N818 - leaves the gate as an answer
    """A request that goes no further."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


class AuthMiddleware:
    """The ASGI application around the page."""

    def __init__(self, app: ASGIApp, doors: AuthMethods, limits: RateLimits, audit: SelfAudit) -> None:
        self._app = app
        self._doors = doors
        self._limits = limits
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        origin = _origin(scope, headers)
        answer = _Answer(send, self._doors.is_secure, origin)
        try:
            access, session = await self._let_in(scope, headers, origin)
            if access.viewer is not None and access.means != "token" and origin.method in _CHANGING:
                receive = await self._ours(_holder(access.viewer, session), headers, receive)
        except _Refusal as refusal:
            await self._refuse(scope, answer, refusal, headers)
            return
        scope[KEY] = access
        if session is not None and (renewed := self._doors.sessions.renewed(session, _now())) is not None:
            answer.renewal = self._doors.sessions.write(renewed)
        await self._app(scope, receive, answer)

    async def _let_in(self, scope: Scope, headers: dict[str, str], origin: Origin) -> tuple[Access, Session | None]:
        path: str = scope["path"]
        if path != HEALTH and headers.get("host", "") != self._doors.host:
            # A name that somebody else made to resolve to this machine.
            raise _Refusal(HTTPStatus.MISDIRECTED_REQUEST, f"this page is at {self._doors.url}")
        is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDER)
        means: Means = "nothing"
        session: Session | None = None
        try:
            viewer, means, session = await self._viewer(headers, path)
        except DeniedError as error:
            if not is_open:
                self._note_denial(origin, None, str(error), HTTPStatus.UNAUTHORIZED)
                raise self._too_often(origin) or _Refusal(HTTPStatus.UNAUTHORIZED, str(error), _ASK) from error
            viewer = None
        except AdminError as error:
            raise _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        if viewer is None:
            if path != HEALTH and not path.startswith(OPEN_FOLDER) and (refusal := self._too_often(origin)) is not None:
                raise refusal
            if not is_open:
                if not _is_led_to_sign_in(scope):
                    self._note_denial(origin, None, "nobody has signed in", HTTPStatus.UNAUTHORIZED)
                raise _Refusal(HTTPStatus.UNAUTHORIZED, "sign in first", _ASK)
            if origin.method in _CHANGING and not self._is_own_page(headers):
                raise _Refusal(HTTPStatus.FORBIDDEN, "the request comes from another site's page")
        else:
            verdict = self._limits.viewer(viewer.subject)
            if not verdict.is_passed:
                raise _slower(verdict.wait)
        token = "" if viewer is None or means == "token" else self._doors.forms.token(_holder(viewer, session))
        return Access(viewer=viewer, means=means, form_token=token, origin=origin), session

    async def _viewer(self, headers: dict[str, str], path: str) -> tuple[Viewer | None, Means, Session | None]:
        """Who sends a request.

        Raises:
            DeniedError: They showed something that is not, or no longer, worth anything.
        """
        authorization = headers.get("authorization")
        if authorization is not None and path.startswith("/api/"):
            scheme, _, text = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise DeniedError("give a token: Authorization: Bearer ...")
            return await to_thread.run_sync(self._doors.token, text.strip()), "token", None
        if self._doors.assertion_header is not None and self._doors.assertion is not None:
            text = headers.get(self._doors.assertion_header, "")
            if not text:
                return None, "nothing", None
            return await to_thread.run_sync(self._doors.assertion, text), "proxy", None
        session = self._doors.sessions.read(_cookie(headers, self._doors.sessions.name), _now())
        return (None, "nothing", None) if session is None else (session.viewer, "session", session)

    async def _ours(self, holder: str, headers: dict[str, str], receive: Receive) -> Receive:
        """Hold a change against forgery; return the body once more.

        Raises:
            _Refusal: It does not come from a form of ours.
        """
        if not self._is_own_page(headers):
            raise _Refusal(HTTPStatus.FORBIDDEN, "the request comes from another site's page")
        token, again = headers.get("x-csrf-token", ""), receive
        if not token and headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            body = await _body(receive)
            token = parse_qs(body.decode("latin-1")).get("csrf", [""])[0]
            again = _replay(body, receive)
        if not self._doors.forms.is_ours(token, holder):
            raise _Refusal(HTTPStatus.FORBIDDEN, "the form is too old: load its page anew")
        return again

    def _is_own_page(self, headers: dict[str, str]) -> bool:
        """Whether a browser says that a page of ours sends this; a client that is no browser says nothing."""
        site = headers.get("sec-fetch-site")
        sender = headers.get("origin")
        if site is not None and site not in {"same-origin", "none"}:
            return False
        return sender is None or sender == self._doors.url

    def _too_often(self, origin: Origin) -> _Refusal | None:
        verdict = self._limits.address(origin.address)
        return None if verdict.is_passed else _slower(verdict.wait)

    def _note_denial(self, origin: Origin, viewer: Viewer | None, reason: str, status: int) -> None:
        if self._limits.is_denial_told(origin.address if viewer is None else viewer.subject):
            self._audit.denied(origin, viewer, reason=reason, status=status)

    async def _refuse(self, scope: Scope, answer: "_Answer", refusal: _Refusal, headers: dict[str, str]) -> None:
        path: str = scope["path"]
        if refusal.status == HTTPStatus.UNAUTHORIZED and _is_led_to_sign_in(scope):
            query = scope["query_string"].decode("latin-1")
            onwards = quote(path + (f"?{query}" if query else ""), safe="")
            if headers.get("hx-request"):
                # A part of a page cannot become the sign-in: the whole page goes there.
                await answer.whole(HTTPStatus.UNAUTHORIZED, b"", {"hx-redirect": "/login"})
            else:
                await answer.whole(HTTPStatus.SEE_OTHER, b"", {"location": f"/login?next={onwards}"})
            return
        body = problem_body(refusal.status, refusal.detail, request_id=answer.origin.request_id)
        await answer.whole(refusal.status, body, {"content-type": MEDIA_TYPE, **refusal.headers})


class _Answer:
    """Adds to every answer what every answer has."""

    def __init__(self, send: Send, is_secure: bool, origin: Origin) -> None:  # noqa: FBT001 - of this module
        self._send = send
        self._is_secure = is_secure
        self.origin = origin
        self.renewal: str | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            more = {**_HEADERS, "x-request-id": self.origin.request_id, "cache-control": "no-store"}
            if self._is_secure:
                more["strict-transport-security"] = "max-age=31536000"
            headers = [*message["headers"]]
            headers += [(name.encode(), value.encode()) for name, value in more.items() if name.encode() not in present]
            if self.renewal is not None and b"set-cookie" not in present:
                headers.append((b"set-cookie", self.renewal.encode()))
            message = {**message, "headers": headers}
        await self._send(message)

    async def whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answer at once."""
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        raw.append((b"content-length", str(len(body)).encode()))
        await self({"type": "http.response.start", "status": int(status), "headers": raw})
        await self({"type": "http.response.body", "body": body})


_ASK = {"www-authenticate": "Bearer"}


def _is_led_to_sign_in(scope: Scope) -> bool:
    """Whether nobody is sent to the sign-in, as a browser that opens a page: no denial, but how everybody begins."""
    return scope["method"] == "GET" and not scope["path"].startswith("/api/")


def _slower(wait: int) -> _Refusal:
    return _Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"too many requests: wait {wait} s", {"retry-after": str(wait)})


def _holder(viewer: Viewer, session: Session | None) -> str:
    """For whom a form is written: a page of another person, or of an earlier session, is not theirs."""
    return f"{viewer.subject}\0{0 if session is None else session.began}"


def _origin(scope: Scope, headers: dict[str, str]) -> Origin:
    client = scope.get("client")
    return Origin(
        request_id=secrets.token_hex(8),
        address=client[0] if client else "unknown",
        user_agent=_plain(headers.get("user-agent", "")),
        method=scope["method"],
        path=_plain(scope["path"]),
    )


def _plain(text: str) -> str:
    """Text that an event can hold, cut."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")[:_CUT]


def _cookie(headers: dict[str, str], name: str) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


def _now() -> int:
    return int(time.time())


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _Refusal(HTTPStatus.BAD_REQUEST, "the request broke off")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _FORM_BYTES:
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a form of more than {_FORM_BYTES} bytes")
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
