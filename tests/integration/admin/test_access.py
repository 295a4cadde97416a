"""Access control: every route without a viewer, as admin of another organisation, as admin, as auditor."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from auditstream_admin.auth.viewer import Viewer
from auditstream_local.endpoints import Endpoints
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import ClickHouseSettings
from tests.support.admin import ACME, AUDITOR, GLOBEX, URL, AdminPage, admin_database, admin_page
from tests.support.events import make_event
from tests.support.stored_events import store

MARK = "only-org-0-may-read-this"


@dataclass(frozen=True, kw_only=True)
class AccessSetup:
    admin_page: AdminPage
    event: AuditEvent
    export: UUID


@pytest.fixture(scope="module")
def database(stack: Endpoints) -> Iterator[ClickHouseSettings]:
    with admin_database(stack) as settings:
        yield settings


@pytest.fixture(scope="module")
def event(database: ClickHouseSettings) -> AuditEvent:
    made = make_event(0, payload={"secret": MARK})
    store(database, [made, make_event(1)])
    return made


@pytest.fixture
def setup(database: ClickHouseSettings, event: AuditEvent) -> AccessSetup:
    """The page with one event and one finished export of org-0."""
    made = admin_page(database)
    with made.client(ACME) as client:
        answer = client.post("/api/v1/exports", json={"query": "range=90d"}, headers=form_of(client))
    job = made.exports.job(UUID(answer.json()["id"]))
    assert job is not None
    made.exports.finish(job, MARK.encode())
    made.emitted.clear()
    return AccessSetup(admin_page=made, event=event, export=job.id)


def form_of(client: TestClient) -> dict[str, str]:
    """The CSRF token of a page, as a header."""
    token = re.search(r'name="csrf-token" content="([^"]+)"', client.get("/events").text)
    assert token is not None
    return {"x-csrf-token": token[1]}


def all_routes(routes: Sequence[BaseRoute]) -> Iterator[BaseRoute]:
    """The routes of an application and of its routers."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from all_routes(included.routes)


def requests(setup: AccessSetup) -> list[tuple[str, str, dict[str, Any]]]:
    """One valid request for every route of the application."""
    requests: list[tuple[str, str, dict[str, Any]]] = []
    for route in all_routes(setup.admin_page.app.routes.routes):
        if isinstance(route, Mount):
            requests.append(("GET", f"{route.path}/page.css", {}))
            continue
        assert isinstance(route, Route | APIRoute)
        identity = setup.export if "/exports/" in route.path else setup.event.id
        for method in sorted(route.methods or ()):
            more: dict[str, Any] = {}
            if method == "POST":
                more = {"json": {}} if route.path.startswith("/api/") else {"data": {"role": "auditor", "query": ""}}
            requests.append((method, route.path.replace("{id}", str(identity)), more))
    # Requests that end a session or an export come last.
    return sorted(requests, key=lambda request: (request[0] != "GET", request[1] == "/logout"))


OPEN = {"/healthz", "/login", "/login/start", "/login/callback", "/login/development", "/static/page.css"}


def test_these_tests_request_every_route(setup: AccessSetup) -> None:
    paths = {path for _, path, _ in requests(setup)}
    assert len(paths) >= 20
    assert {"/events", "/tail", "/histogram", "/exports", "/api/v1/events", "/api/v1/openapi.json", "/logout"} <= paths
    assert not any("{" in path for path in paths)


def test_without_sign_in_only_health_and_sign_in_are_open(setup: AccessSetup) -> None:
    with setup.admin_page.client() as client:
        for method, path, more in requests(setup):
            answer = client.request(method, path, **more)
            assert MARK not in answer.text, path
            if path in OPEN:
                assert answer.status_code != 401, (method, path)
            elif path.startswith("/api/") or method != "GET":
                assert answer.status_code == 401, (method, path)
                assert answer.headers["content-type"] == "application/problem+json"
            else:
                assert answer.status_code == 303, (method, path)
                assert answer.headers["location"].startswith("/login?next=")
        # An unknown path gets the same response as a known one.
        assert client.get("/nowhere").status_code == 303
        assert client.get("/api/v1/nowhere").status_code == 401
    denials = [event for event in setup.admin_page.emitted if event.action == "audit_log.access.deny"]
    assert 0 < len(denials) <= 10
    assert {event.actor.id for event in denials} == {"nobody"}


@pytest.mark.parametrize("viewer", [GLOBEX, ACME, AUDITOR], ids=["another", "admin", "auditor"])
def test_every_route_is_limited_to_the_scopes_of_the_viewer(setup: AccessSetup, viewer: Viewer) -> None:
    paths_with_secret = set()
    with setup.admin_page.client(viewer) as client:
        form = form_of(client)
        for method, path, more in requests(setup):
            answer = client.request(method, path, headers=form, **more)
            expected = {200, 202, 303, 403} if viewer is not GLOBEX else {200, 202, 303, 403, 404}
            if path not in OPEN:
                assert answer.status_code in expected, (method, path, answer.text)
            if MARK in answer.text:
                paths_with_secret.add(path)
    own = {
        f"/events/{setup.event.id}",
        "/api/v1/events",
        f"/api/v1/events/{setup.event.id}",
        f"/exports/{setup.export}/file",
        f"/api/v1/exports/{setup.export}/file",
    }
    assert paths_with_secret == (set() if viewer is GLOBEX else own)


def test_events_and_exports_of_other_organisations_are_not_found(setup: AccessSetup) -> None:
    with setup.admin_page.client(GLOBEX) as client:
        form = form_of(client)
        for path in (f"/events/{setup.event.id}", f"/exports/{setup.export}", f"/exports/{setup.export}/file"):
            assert client.get(path).status_code == 404
            answer = client.get(f"/api/v1{path}")
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
        assert client.delete(f"/api/v1/exports/{setup.export}", headers=form).status_code == 404
        assert client.post(f"/exports/{setup.export}/cancel", headers=form).status_code == 404
        assert client.get("/api/v1/exports").json() == {"exports": []}
        assert str(setup.export) not in client.get("/exports").text
        for scope in ("org-0", "", "org-1' OR '1'='1"):
            answer = client.get("/api/v1/events", params={"scope": scope, "range": "90d"})
            assert {event["scope"]["id"] for event in answer.json()["events"]} <= {"org-1"}
        response = client.post("/api/v1/exports", json={"query": "scope=org-0"}, headers=form)
        assert response.status_code == 403
        actions = client.get("/api/v1/actions", params={"range": "90d"}).json()["actions"]
        assert sum(action["events"] for action in actions) == 1


def test_an_auditor_may_read_but_not_export(setup: AccessSetup) -> None:
    with setup.admin_page.client(AUDITOR) as client:
        form = form_of(client)
        assert client.get(f"/exports/{setup.export}/file").text == MARK
        for answer in (
            client.post("/exports", data={"query": ""}, headers=form),
            client.post("/api/v1/exports", json={}, headers=form),
            client.delete(f"/api/v1/exports/{setup.export}", headers=form),
        ):
            assert answer.status_code == 403
    denials = [event for event in setup.admin_page.emitted if event.action == "audit_log.access.deny"]
    assert [event.actor.id for event in denials] == ["ann"] * 3


def test_a_write_needs_a_csrf_token_of_the_viewer(setup: AccessSetup) -> None:
    with setup.admin_page.client(ACME) as client, setup.admin_page.client(GLOBEX) as other:
        mine, theirs = form_of(client), form_of(other)
        for headers in (
            {},
            {"x-csrf-token": "made up"},
            theirs,
            {**mine, "origin": "https://evil.example"},
            {**mine, "sec-fetch-site": "cross-site"},
        ):
            for path in ("/exports", "/logout", "/api/v1/exports"):
                assert client.post(path, headers=headers).status_code == 403, (path, headers)
        assert client.post("/exports", data={"csrf": mine["x-csrf-token"], "query": ""}).status_code == 303
        assert client.post("/logout", headers={**mine, "origin": URL}).status_code == 303


def test_every_response_has_the_security_headers(setup: AccessSetup) -> None:
    with setup.admin_page.client(ACME) as client:
        for path in ("/events", "/nowhere", "/api/v1/events", "/static/page.css", "/healthz"):
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["cache-control"] == "no-store"
            assert headers["x-request-id"]
        page = client.get("/events").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page)


def test_requests_for_another_host_name_are_refused(setup: AccessSetup) -> None:
    with setup.admin_page.client(ACME) as client:
        assert client.get("/events", headers={"host": "evil.example"}).status_code == 421
        assert client.get("/healthz", headers={"host": "10.0.0.1"}).status_code == 200


def test_requests_over_the_rate_limit_are_refused(database: ClickHouseSettings) -> None:
    made = admin_page(database, admin_rate="3/minute", admin_anonymous_rate="2/minute")
    with made.client(ACME) as client, made.client(GLOBEX) as other, made.client() as anonymous:
        assert [client.get("/events").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert other.get("/events").status_code == 200
        assert [anonymous.get("/login").status_code for _ in range(3)] == [200, 200, 429]
        assert int(anonymous.get("/events").headers["retry-after"]) >= 1
        assert anonymous.get("/healthz").status_code == 200


def test_a_session_ends(database: ClickHouseSettings) -> None:
    made = admin_page(database)
    with made.client() as client:
        now = int(time.time())
        for age, status in ((0, 200), (3599 - 60, 200), (3601, 303)):
            cookie = made.cookie(ACME, now=now - age)
            assert client.get("/events", headers={"cookie": cookie}).status_code == status
        renewed = client.get("/events", headers={"cookie": made.cookie(ACME, now=now - 1800)})
        assert "HttpOnly; SameSite=Lax" in renewed.headers["set-cookie"]
        broken = made.cookie(ACME)[:-2] + "xx"
        assert client.get("/events", headers={"cookie": broken}).status_code == 303
    safe = admin_page(database, admin_url="https://audit.test")
    with safe.client() as client:
        assert client.get("/login").headers["strict-transport-security"]
    assert safe.cookie(ACME).startswith("__Host-auditstream=")


def test_views_and_queries_become_audit_events(setup: AccessSetup) -> None:
    with setup.admin_page.client(ACME) as client:
        client.get("/events", params={"action": "context.*", "scope": "org-0"})
        client.get("/api/v1/events", params={"limit": 1})
    page, query = setup.admin_page.emitted
    assert [page.action, query.action] == ["audit_log.page.view", "audit_log.api.query"]
    assert {event.scope.id for event in setup.admin_page.emitted if event.scope} == {"org-0"}
    assert page.actor.id == "ada"
    assert page.request is not None
    assert set(page.request.attributes) == {"ip", "user_agent"}
