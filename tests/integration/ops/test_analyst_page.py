"""The queries of the analyst's pages, run as they are written against events whose answers are known."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from auditstream_ops.demo_events import demo_events
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import ClickHouseSettings
from tests.support.fix_stack import Tenant
from tests.support.stored_events import connect, store

DOCS = Path(__file__).parents[3] / "consumers" / "docs"
QUESTIONS = re.findall(
    r"^## (\d+)\. .*?^```sql\n(.*?)^```", (DOCS / "analyst-questions.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
)
# Monday of the week before last, at noon: a weekday in working hours, whenever the test runs.
_TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
MONDAY = _TODAY - timedelta(days=_TODAY.weekday() + 7)
RECENT = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
TOKEN = "token:5f1f2a4c-6d0a-4a5b-9a51-0f5ed8a2b7c1"  # noqa: S105 - the id of a token, not its secret


def _event(action: str, at: datetime, **fields: Any) -> AuditEvent:
    number = _event.count = getattr(_event, "count", 0) + 1  # type: ignore[attr-defined]
    values = {
        "actor": {"id": "user-1", "type": "user"},
        "target": {"id": "t-1", "type": "thing"},
        "scope": {"id": "org-other", "type": "organization"},
        "id": f"019b76da-a800-7000-8000-{number:012}",
        **fields,
    }
    return AuditEvent.build(action=action, occurred_at=at, **values)


def _login(user: str, ip: str, failure: str | None, at: datetime) -> AuditEvent:
    payload = {"method": "password", "mfa": None, "session_id": None}
    return _event(
        "user.logged_in",
        at,
        target={"id": user, "type": "user"},
        request={"id": f"login-{user}-{at:%d%H%M}", "ip": ip},
        payload=payload | ({"failure": failure} if failure else {}),
        success=failure is None,
    )


ACME = {"id": "org-acme", "type": "organization"}


def _user(name: str, **attributes: str) -> Mapping[str, str]:
    return {"id": name, "type": "user", "name": name.title(), **attributes}


def _setting(name: str, old: object, new: object) -> dict[str, object]:
    return {"changes": [{"name": name, "old": old, "new": new}, {"name": "unrelated", "old": 1, "new": 2}]}


def _known_events() -> list[AuditEvent]:
    minute = timedelta(minutes=1)
    project = {"id": "prj-1", "type": "project"}
    night = MONDAY.replace(hour=23)
    request = {"id": "req-9f3"}
    api = {"id": TOKEN, "type": "api_token", "name": "siem"}
    query = {"path": "/api/v1/events", "filter": {"actor": "u-17"}, "rows": 100}
    query_request = {"id": "q", "ip": "192.0.2.9"}
    secret = {"name": "KEY"}
    parallel = "max_parallel_jobs"
    return [
        _login("u-1", "192.0.2.1", "mfa_failed", RECENT),
        _login("u-1", "192.0.2.1", "mfa_failed", RECENT + minute),
        _login("u-2", "192.0.2.2", "bad_password", RECENT),
        _login("u-2", "192.0.2.2", None, RECENT + minute),
        _login("u-2", "192.0.2.2", "bad_password", RECENT - timedelta(days=8)),
        _event("project.env_var.create", MONDAY, actor=_user("ada"), target=project, scope=ACME, payload=secret),
        _event("project.ssh_key.delete", night, actor=_user("bob"), target=project, scope=ACME, success=False),
        _event("project.env_var.create", MONDAY, target=project, payload={"name": "OF_ANOTHER_ORGANISATION"}),
        _event("context.create", MONDAY, request=request, target={"id": "c-1", "type": "context"}),
        _event("context.delete", MONDAY + minute, request=request, target={"id": "c-1", "type": "context"}),
        _event("schedule.create", RECENT, actor=_user("user-17")),
        _event("schedule.create", RECENT, actor=_user("user-17"), success=False),
        _event("schedule.create", RECENT - timedelta(days=8), actor=_user("user-17")),
        _event("user.create", RECENT - timedelta(days=60), actor=_user("old-admin", role="admin")),
        _event("user.create", MONDAY, actor=_user("old-admin", role="admin")),
        _event("user.create", MONDAY, actor=_user("new-admin", role="admin")),
        _event("project.settings.update", MONDAY, target=project, payload=_setting(parallel, 4, 16)),
        _event("project.settings.update", MONDAY + minute, target=project, payload=_setting(parallel, 16, None)),
        _event("audit_log.api.query", MONDAY, actor=api, scope=ACME, payload=query, request=query_request),
    ]


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


MINUTE = timedelta(minutes=1)
NIGHT = MONDAY.replace(hour=23)
ANSWERS: dict[int, list[dict[str, Any]]] = {
    1: [
        {"user": "u-1", "ip": "192.0.2.1", "failure": "mfa_failed", "attempts": 2, "last_attempt": RECENT + MINUTE},
        {"user": "u-2", "ip": "192.0.2.2", "failure": "bad_password", "attempts": 1, "last_attempt": RECENT},
    ],
    2: [
        {"who": "bob", "action": "project.ssh_key.delete", "target": "prj-1", "secret": "", "success": False},
        {"who": "ada", "action": "project.env_var.create", "target": "prj-1", "secret": "KEY", "success": True},
    ],
    3: [
        {"occurred_at": MONDAY, "action": "context.create", "who": "user-1", "type": "context", "target": "c-1"},
        {"occurred_at": MONDAY + MINUTE, "action": "context.delete"},
    ],
    4: [{"day": f"{RECENT:%Y-%m-%d}", "action": "schedule.create", "events": 2, "failed": 1}],
    5: [{"who": "new-admin", "name": "New-Admin", "first_seen_as_admin": MONDAY}],
    6: [{"who": "bob", "events": 1}],
    8: [
        {"who": "bob", "first_seen": NIGHT, "last_seen": NIGHT, "events": 1},
        {"who": "ada", "events": 1},
        {"who": TOKEN, "events": 1},
    ],
    9: [
        {"occurred_at": MONDAY, "who": "user-1", "project": "prj-1", "before": "4", "after": "16"},
        {"occurred_at": MONDAY + MINUTE, "before": "16", "after": "null"},
    ],
    10: [
        {
            "occurred_at": MONDAY,
            "action": "audit_log.api.query",
            "scope_id": "org-acme",
            "filter": '{"actor":"u-17"}',
            "rows": 100,
            "ip": "192.0.2.9",
            "success": True,
        }
    ],
}


@pytest.fixture
def known(tenant: Tenant) -> Tenant:
    store(_settings(tenant), _known_events())
    return tenant


def test_every_question_has_the_answer_that_the_events_give(known: Tenant) -> None:
    assert [int(number) for number, _ in QUESTIONS] == list(range(1, 11))
    for number, query in QUESTIONS:
        rows = _ask(known, query)
        if int(number) in ANSWERS:
            expected = ANSWERS[int(number)]
            assert [_part(row, like) for row, like in zip(rows, expected, strict=True)] == [
                {name: _plain(value) for name, value in row.items()} for row in expected
            ], f"question {number}"


def test_the_volume_by_action_counts_every_event_and_the_failed_ones(known: Tenant) -> None:
    rows = _ask(known, dict(QUESTIONS)["7"])
    assert sum(row["events"] for row in rows) == len(_known_events())
    by_action = {row["action"]: row["failed_percent"] for row in rows}
    assert by_action["project.ssh_key.delete"] == 100
    assert by_action["context.create"] == 0


def test_every_query_of_the_pages_runs_on_the_demo_events(tenant: Tenant) -> None:
    store(_settings(tenant), list(demo_events(400, now=time.time_ns(), seed=1)))
    for page in ("analyst.md", "analyst-questions.md"):
        for query in re.findall(r"^```sql\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE):
            _ask(tenant, query)


def test_the_format_of_the_query_wins_over_the_option(tenant: Tenant) -> None:
    assert _sql(tenant, "SELECT 1 AS a FORMAT CSVWithNames", "--format", "Vertical") == b'"a"\n1\n'
    assert _sql(tenant, "SELECT 1 AS a", "--format", "TSV") == b"1\n"
    assert "1. │ 1 │".encode() in _sql(tenant, "SELECT 1 AS a -- FORMAT CSV\n;")
    assert _sql(tenant, "SELECT 1 AS a FORMAT Parquet")[:4] == b"PAR1"


def _settings(tenant: Tenant) -> ClickHouseSettings:
    return ClickHouseSettings(clickhouse_url=tenant.endpoints.clickhouse_url, clickhouse_database=tenant.database)


def _sql(tenant: Tenant, query: str, *options: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "auditstream_ops", "sql", query, *options],
        env={**os.environ, **tenant.env},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _ask(tenant: Tenant, query: str) -> list[dict[str, Any]]:
    with connect(_settings(tenant)) as client:
        answer = client.raw_query(query, fmt="JSONEachRow", settings={"database": tenant.database}, use_database=False)
    return [json.loads(line) for line in answer.splitlines()]


def _part(row: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that the answer names; times without their fraction, numbers as numbers."""
    return {name: _plain(row[name], like=like[name]) for name in like}


def _plain(value: Any, *, like: Any = None) -> Any:
    if isinstance(value, datetime):
        return _text(value)
    if isinstance(like, datetime):
        return str(value)[:19]
    return int(value) if isinstance(like, int) and not isinstance(like, bool) else value
