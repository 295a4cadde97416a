"""The application: routes behind the auth middleware."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from auditstream_admin.api import routes as api
from auditstream_admin.api.models import openapi
from auditstream_admin.auth.access import access_of
from auditstream_admin.auth.middleware import AuthMiddleware, problem
from auditstream_admin.auth.oidc import OidcSignIn
from auditstream_admin.auth.proxy_assertion import ProxyAssertions
from auditstream_admin.auth.rate_limits import RateLimits
from auditstream_admin.auth.self_audit import SelfAudit
from auditstream_admin.auth.sessions import Forms, Sessions
from auditstream_admin.auth.tokens import TokenStore
from auditstream_admin.context import AppContext
from auditstream_admin.events.cursors import Cursors
from auditstream_admin.events.event_store import EventStore
from auditstream_admin.settings import AdminSettings
from auditstream_admin.web import pages, sign_in
from auditstream_admin.web.templating import STATIC, StaticPages
from auditstream_export import ExportJobs
from auditstream_schemas.errors import AdminError, DeniedError, FilterError, StoreUnavailableError
from auditstream_storage import Emit

_STATUSES: dict[type[AdminError], int] = {FilterError: 400, DeniedError: 403, StoreUnavailableError: 503}
"""The HTTP status of an error; 409 for errors without a more specific one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminApp:
    """The audit log page, ready to be served.

    Attributes:
        asgi: The ASGI application to serve: the routes behind the auth middleware.
        routes: The routes alone, for tests.
        url: Public address of the page, without a path.
    """

    asgi: AuthMiddleware
    routes: FastAPI
    url: str


def create_app(
    settings: AdminSettings,
    emit: Emit,
    *,
    url: str | None = None,
    exports: ExportJobs | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> AdminApp:
    """Create the application. Does not connect to ClickHouse yet.

    Args:
        settings: Settings of the page.
        emit: Emits the audit events about the page itself; must not wait for the network.
        url: Public address, if the setting ``admin_url`` is empty.
        exports: Export jobs; None if exports are not configured.
        clock: Nanoseconds since the epoch.

    Raises:
        SettingsError: A setting is missing or malformed.
    """
    settings = settings.checked()
    host, port = settings.address
    url = (settings.admin_url or url or f"http://{f'[{host}]' if ':' in host else host}:{port}").rstrip("/")
    secret = str(settings.admin_secret) or secrets.token_urlsafe(48)
    tokens = TokenStore(settings)
    context = AppContext(
        settings=settings,
        store=EventStore(settings, policy=settings.admin_row_policy, query_seconds=settings.admin_query_seconds),
        cursors=Cursors(secret),
        sessions=Sessions(
            secret,
            seconds=settings.admin_session_seconds,
            idle_seconds=settings.admin_idle_seconds,
            is_secure=url.startswith("https:"),
        ),
        limits=RateLimits(settings),
        audit=SelfAudit(emit, scope_type=settings.scope_type, clock=clock),
        exports=exports,
        oidc=OidcSignIn(settings, secret, f"{url}/login/callback") if settings.admin_sign_in == "oidc" else None,
        clock=clock,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        context.store.close()
        tokens.close()

    routes = FastAPI(
        title="auditstream",
        version="1",
        summary="The audit log of your organisations.",
        openapi_url="/api/v1/openapi.json",
        # FastAPI's documentation pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    routes.state.context = context
    routes.openapi = partial(openapi, routes)  # type: ignore[method-assign]
    routes.include_router(api.router)
    routes.include_router(pages.router, include_in_schema=False)
    routes.include_router(sign_in.router, include_in_schema=False)
    routes.mount("/static", StaticPages(directory=str(STATIC)), name="static")
    _handle_errors(routes, context)
    middleware = AuthMiddleware(
        app=routes,
        sessions=context.sessions,
        forms=Forms(secret, seconds=settings.admin_session_seconds),
        tokens=tokens,
        proxy=ProxyAssertions(settings) if settings.admin_sign_in == "proxy" else None,
        url=url,
        limits=context.limits,
        audit=context.audit,
    )
    return AdminApp(asgi=middleware, routes=routes, url=url)


def _handle_errors(routes: FastAPI, context: AppContext) -> None:
    """Respond to errors with a problem document on the API and with a page elsewhere; emit an event for denials."""

    def respond(request: Request, status: int, detail: str, **members: Any) -> Response:
        if request.url.path.startswith("/api/"):
            return problem(status, detail, request_id=access_of(request).origin.request_id, **members)
        return pages.error_page(request, status, detail)

    @routes.exception_handler(AdminError)
    def admin_error(request: Request, error: AdminError) -> Response:
        status = _STATUSES.get(type(error), 409)
        if isinstance(error, DeniedError):
            access = access_of(request)
            identity = access.origin.address if access.viewer is None else access.viewer.subject
            if context.limits.allows_denial_event(identity):
                context.audit.denied(access.origin, access.viewer, reason=str(error), status=status)
        return respond(request, status, str(error))

    @routes.exception_handler(RequestValidationError)
    def validation_error(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"parameter": ".".join(map(str, fault["loc"][1:])), "reason": str(fault["msg"])} for fault in error.errors()
        ]
        return respond(request, 400, "a parameter is missing or malformed", errors=errors)

    @routes.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        response = respond(request, error.status_code, error.detail)
        response.headers.update(error.headers or {})
        return response
