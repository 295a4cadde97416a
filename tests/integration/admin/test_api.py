"""The API: its OpenAPI document, tokens, and hostile input."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from auditstream_admin.auth.tokens import TokenStore
from auditstream_admin.auth.viewer import Role
from auditstream_local.endpoints import Endpoints
from auditstream_schemas.errors import AdminError
from auditstream_schemas.settings import ClickHouseSettings
from tests.support.admin import ACME, AUDITOR, GLOBEX, AdminPage, admin_database, admin_page, served
from tests.support.events import make_event
from tests.support.fix_stack import credentials
from tests.support.stored_events import connect, store

EARLIER = datetime.now(UTC) - timedelta(minutes=5)


@pytest.fixture(scope="module")
def database(stack: Endpoints) -> Iterator[ClickHouseSettings]:
    with admin_database(stack) as settings_:
        store(settings_, [make_event(number) for number in range(40)], ingested_at=EARLIER)
        yield settings_


@pytest.fixture(scope="module")
def page(database: ClickHouseSettings) -> AdminPage:
    return admin_page(database)


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def made_token(database: ClickHouseSettings, **changes: Any) -> tuple[UUID, str]:
    values: dict[str, Any] = {
        "name": "siem",
        "role": Role.ADMIN,
        "scopes": ["org-0"],
        "created_by": "a test",
        "expires_at": datetime.now(UTC) + timedelta(days=1),
    }
    tokens = TokenStore(database)
    made, text = tokens.create(**{**values, **changes})
    tokens.close()
    return made.id, text


def test_responses_to_generated_requests_match_the_document(database: ClickHouseSettings) -> None:
    _, token = made_token(database)
    with served(database) as page, requests.Session() as session:
        document = session.get(f"{page.app.url}/api/v1/openapi.json", headers=bearer(token), timeout=30).json()
        schema = schemathesis.openapi.from_dict(document)
        operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
        assert len(operations) >= 8
        for operation in operations:
            attempt(operation, session, page.app.url, bearer(token))


def attempt(operation: Any, session: requests.Session, url: str, headers: dict[str, str]) -> None:
    checks = settings(
        max_examples=12,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )

    @checks
    @given(case=operation.as_strategy())
    def run(case: Any) -> None:
        response = case.call(session=session, base_url=url, headers=headers)
        # A text that is not a time or a filter gets 400; the document cannot express which texts are valid.
        case.validate_response(response, excluded_checks=[positive_data_acceptance], headers=headers)

    run()


def test_cursors_lead_through_all_pages(page: AdminPage) -> None:
    with page.client(AUDITOR) as client:
        listed: list[str] = []
        query: dict[str, str] = {"limit": "7", "range": "30d"}
        while True:
            answer = client.get("/api/v1/events", params=query).json()
            listed += [event["id"] for event in answer["events"]]
            if answer["next_cursor"] is None:
                break
            query["cursor"] = answer["next_cursor"]
        assert listed == [str(make_event(number).id) for number in reversed(range(40))]


def test_a_token_is_limited_to_its_scopes_until_it_expires_or_is_revoked(
    page: AdminPage, database: ClickHouseSettings
) -> None:
    identity, token = made_token(database)
    _, auditors = made_token(database, role=Role.AUDITOR, scopes=[])
    _, old = made_token(database, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with page.client() as client:

        def scopes(text: str) -> set[str]:
            answer = client.get("/api/v1/events?range=30d", headers=bearer(text))
            assert answer.status_code == 200
            return {event["scope"]["id"] for event in answer.json()["events"]}

        assert scopes(token) == {"org-0"}
        assert scopes(auditors) == {"org-0", "org-1", "org-2"}
        swapped = token[:37] + auditors[37:]
        for text in ("", "x", old, swapped, token[:-1], token + "x", token.upper(), token.replace("ast", "AST")):
            answer = client.get("/api/v1/events", headers=bearer(text))
            assert answer.status_code == 401, text
            assert answer.headers["www-authenticate"] == "Bearer"
            assert token[-20:] not in answer.text
        # Tokens are valid for the API only, and with the scheme Bearer only.
        assert client.get("/events", headers=bearer(token)).status_code == 303
        assert client.get("/api/v1/events", headers={"authorization": f"Basic {token}"}).status_code == 401
        tokens = TokenStore(database)
        tokens.revoke(identity, revoked_by="a test")
        assert client.get("/api/v1/events", headers=bearer(token)).status_code == 401
        with pytest.raises(AdminError, match="was revoked at"):
            tokens.revoke(identity, revoked_by="a test")
        with pytest.raises(AdminError, match="there is no token"):
            tokens.revoke(UUID(int=1), revoked_by="a test")
        tokens.close()
    rows = connect(database).query(f"SELECT * FROM {database.clickhouse_database}.api_tokens").result_rows
    assert token[37:] not in str(rows)


def test_commands_for_tokens(database: ClickHouseSettings, stack: Endpoints, page: AdminPage) -> None:
    env = {
        **stack.env(),
        **credentials("operator"),
        "AUDITSTREAM_CLICKHOUSE_DATABASE": database.clickhouse_database,
        "AUDITSTREAM_TOPIC": "no.such.topic",
        "AUDITSTREAM_PRODUCER_CLOSE_TIMEOUT": "0",
    }

    def token(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "auditstream_ops", "token", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)

    assert token("create", "x").returncode == 2
    made = json.loads(token("create", "nightly pull", "--scope", "org-1", "--days", "5", "--json").stdout)
    with page.client() as client:
        assert client.get("/api/v1/events", headers=bearer(made["token"])).status_code == 200
    assert "nightly pull, admin of org-1" in token("list").stdout
    assert made["token"] not in token("list", "--json").stdout
    assert token("revoke", made["id"]).returncode == 0
    assert "revoked" in token("list").stdout


HOSTILE = [
    "' OR '1'='1",
    "') UNION ALL SELECT 1 --",
    "{database:Identifier}",
    "{scope:String}",
    "\\' OR 1=1 --",
    "\\",
    "%",
    "a\tb\nc\rd",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{1234567*7}}{% raw %}",
    "=1+1",
    "x\r\nset-cookie: evil=1",
    "👩‍🚀 \u202eabc",
    "NULL",
    "\\N",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_parameters_are_harmless(page: AdminPage, text: str) -> None:
    fields = {"action": text, "actor": text, "target": text, "request": text, "meta": f"{text}={text}", "q": text}
    with page.client(ACME) as client:
        for name, value in [*fields.items(), ("scope", text)]:
            query = urlencode({name: value, "range": "30d"})
            answer = client.get(f"/api/v1/events?{query}")
            assert answer.status_code == 200, (name, answer.text)
            assert {event["scope"]["id"] for event in answer.json()["events"]} <= {"org-0"}
            if name not in {"q", "action"}:
                assert answer.json()["events"] == []
            answer = client.get(f"/events?{query}")
            assert answer.status_code == 200
            assert "<script>alert" not in answer.text
            assert "<img src=x" not in answer.text
            assert "8641969" not in answer.text
            assert "evil" not in answer.headers
        for path in (f"/events/{quote(text)}", f"/exports/{quote(text)}", f"/api/v1/events/{quote(text)}"):
            assert client.get(path).status_code in {400, 404}
        for parameter in ("cursor", "mark"):
            path = "/tail" if parameter == "mark" else "/api/v1/events"
            assert client.get(path, params={parameter: text}).status_code == 400
        login = client.get("/login", params={"next": text})
        assert "<script>alert" not in login.text


def test_events_with_hostile_content_are_shown_as_text(database: ClickHouseSettings, page: AdminPage) -> None:
    events = [
        make_event(
            500 + number,
            actor={"id": text, "type": text, "name": text, "k": text},
            target={"id": text, "type": "x", text: text},
            metadata={text: text},
            payload={text: text},
        )
        for number, text in enumerate(HOSTILE)
    ]
    store(database, events, ingested_at=EARLIER)
    with page.client(AUDITOR) as client:
        pages = [client.get("/events?range=30d").text]
        for event in events:
            response = client.get(f"/events/{event.id}")
            assert response.status_code == 200
            pages.append(response.text)
            # "Same actor" finds the event by every id.
            same = client.get("/api/v1/events", params={"actor": event.actor.id, "range": "30d"})
            assert [event["id"] for event in same.json()["events"]] == [str(event.id)]
    for text in pages:
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "8641969" not in text


def test_cursors_marks_and_links_of_another_organisation_are_rejected(page: AdminPage) -> None:
    with page.client(ACME) as mine, page.client(GLOBEX) as theirs:
        answer = mine.get("/api/v1/events", params={"limit": 1, "range": "30d"}).json()
        cursor = {"limit": 1, "range": "30d", "cursor": answer["next_cursor"]}
        assert mine.get("/api/v1/events", params=cursor).status_code == 200
        assert theirs.get("/api/v1/events", params=cursor).status_code == 400
        assert mine.get("/api/v1/events", params={**cursor, "scope": "org-0"}).status_code == 400
        again = mine.get("/tail").text.partition('hx-get="')[2].partition('"')[0].replace("&amp;", "&")
        assert mine.get(again).status_code == 200
        assert theirs.get(again).status_code == 400


def test_a_file_name_cannot_break_its_header(page: AdminPage) -> None:
    with page.client(ACME) as client:
        form = {"x-csrf-token": client.get("/events").text.partition('csrf-token" content="')[2].partition('"')[0]}
        made = client.post("/api/v1/exports", json={"query": "action=user.*"}, headers=form).json()
        job = page.exports.job(UUID(made["id"]))
        assert job is not None
        assert client.get(f"/exports/{job.id}/file").status_code == 409
        content = io.StringIO()
        csv.writer(content).writerow(["a", "b"])
        page.exports.finish(job, content.getvalue().encode())
        answer = client.get(f"/exports/{job.id}/file")
        name = answer.headers["content-disposition"]
        assert name.startswith('attachment; filename="export__')
        assert "\n" not in name
        assert name.count('"') == 2
        assert answer.content == b"a,b\r\n"
        page.exports.quota = 0
        assert client.post("/api/v1/exports", json={}, headers=form).status_code == 403
        page.exports.quota = 1000


def test_an_unreachable_clickhouse_is_reported_as_503(stack: Endpoints) -> None:
    del stack
    lost = admin_page(ClickHouseSettings(clickhouse_url="http://127.0.0.1:9"))
    with lost.client(ACME) as client:
        answer = client.get("/api/v1/events")
        assert answer.status_code == 503
        assert answer.json()["title"] == "Service Unavailable"
        assert client.get("/events").status_code == 503
        assert client.get("/api/v1/events", headers=bearer("ast_" + "0" * 32 + "_" + "x" * 43)).status_code == 503
        assert client.get("/healthz").status_code == 200
