"""The application: routes behind the gate, made of parts that are handed in."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from auditstream_admin.api import routes as api
from auditstream_admin.api.openapi import openapi
from auditstream_admin.auth.access import access_of
from auditstream_admin.auth.middleware import AuthMethods, AuthMiddleware
from auditstream_admin.auth.oidc import OidcSignIn
from auditstream_admin.auth.problems import is_for_programs, problem, status_of
from auditstream_admin.auth.proxy_assertion import ProxyAssertions
from auditstream_admin.auth.rate_limits import RateLimits
from auditstream_admin.auth.self_audit import SelfAudit
from auditstream_admin.auth.sessions import Forms, Sessions
from auditstream_admin.auth.tokens import TokenStore
from auditstream_admin.context import AppContext
from auditstream_admin.events.cursors import Cursors
from auditstream_admin.events.event_store import EventStore
from auditstream_admin.exports.service import ExportService
from auditstream_admin.settings import AdminSettings
from auditstream_admin.web import pages, sign_in
from auditstream_admin.web.templating import STATIC, StaticPages
from auditstream_schemas.errors import AdminError, DeniedError
from auditstream_storage import Emit


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminApp:
    """The page, ready to be served.

    Attributes:
        asgi: The whole of it, behind the gate.
        routes: The application within, for tests that walk its routes.
        url: Its address as browsers have it.
    """

    asgi: AuthMiddleware
    routes: FastAPI
    url: str


def create_app(
    settings: AdminSettings,
    emit: Emit,
    *,
    url: str | None = None,
    exports: ExportService | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> AdminApp:
    """Put the page together; nothing is asked yet, and ClickHouse need not be there.

    Args:
        settings: Who may see it and where the events are.
        emit: Takes the events about the page itself; must not wait for the network.
        url: Its address as browsers have it, where ``admin_url`` does not say it.
        exports: Runs exports; None shows none.
        clock: Nanoseconds since the epoch.

    Raises:
        SettingsError: A setting is missing or malformed.
    """
    settings = settings.checked()
    host, port = settings.address
    shown = f"[{host}]" if ":" in host else host
    address = (settings.admin_url or url or f"http://{shown}:{port}").rstrip("/")
    secret = str(settings.admin_secret) or secrets.token_urlsafe(48)
    is_secure = address.startswith("https:")
    store = EventStore(settings, policy=settings.admin_row_policy, query_seconds=settings.admin_query_seconds)
    tokens = TokenStore(settings)
    limits = RateLimits(settings)
    audit = SelfAudit(emit, scope_type=settings.scope_type, clock=clock)
    sessions = Sessions(
        secret,
        seconds=settings.admin_session_seconds,
        idle_seconds=settings.admin_idle_seconds,
        is_secure=is_secure,
    )
    parts = AppContext(
        settings=settings,
        url=address,
        store=store,
        cursors=Cursors(secret),
        sessions=sessions,
        limits=limits,
        audit=audit,
        exports=exports,
        oidc=OidcSignIn(settings, secret, f"{address}/login/callback") if settings.admin_sign_in == "oidc" else None,
        clock=clock,
    )

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        yield
        store.close()
        tokens.close()

    routes = FastAPI(
        title="auditstream",
        version="1",
        summary="The audit log of your organisations.",
        openapi_url="/api/v1/openapi.json",
        # The documentation pages that FastAPI has load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=life,
    )
    routes.state.parts = parts
    routes.openapi = partial(openapi, routes)  # type: ignore[method-assign]
    routes.include_router(api.router)
    routes.include_router(pages.router, include_in_schema=False)
    routes.include_router(sign_in.router, include_in_schema=False)
    routes.mount("/static", StaticPages(directory=str(STATIC)), name="static")
    _handle_errors(routes, parts)
    assertions = ProxyAssertions(settings) if settings.admin_sign_in == "proxy" else None
    doors = AuthMethods(
        sessions=sessions,
        forms=Forms(secret, seconds=settings.admin_session_seconds),
        token=tokens.viewer,
        assertion_header=None if assertions is None else settings.admin_proxy_header.lower(),
        assertion=None if assertions is None else assertions.viewer,
        url=address,
    )
    return AdminApp(asgi=AuthMiddleware(routes, doors, limits, audit), routes=routes, url=address)


def _handle_errors(routes: FastAPI, parts: AppContext) -> None:
    """Answer errors in the form that was asked for; what was denied is said."""

    def answer(request: Request, status: int, detail: str, **more: object) -> Response:
        if is_for_programs(request):
            return problem(status, detail, request_id=access_of(request).origin.request_id, **more)
        return pages.error_page(request, status, detail)

    @routes.exception_handler(AdminError)
    def ours(request: Request, error: AdminError) -> Response:
        status = status_of(error)
        if isinstance(error, DeniedError):
            access = access_of(request)
            who = access.origin.address if access.viewer is None else access.viewer.subject
            if parts.limits.is_denial_told(who):
                parts.audit.denied(access.origin, access.viewer, reason=str(error), status=status)
        return answer(request, status, str(error))

    @routes.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        faults = [
            {"parameter": ".".join(map(str, one["loc"][1:])), "reason": str(one["msg"])} for one in error.errors()
        ]
        return answer(request, 400, "a parameter makes no sense", errors=faults)

    @routes.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> Response:
        response = answer(request, error.status_code, error.detail)
        response.headers.update(error.headers or {})
        return response
