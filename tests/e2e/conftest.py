"""Databases with no events, one event, and a million, and the page over each."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from uuid_utils.compat import uuid7

from auditstream_local.endpoints import Endpoints
from auditstream_ops.demo_events import demo_events
from auditstream_schemas.event import AuditEvent, Entity, Request
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import NANOSECONDS
from tests.support.admin import AdminPage, admin_database, served
from tests.support.stored_events import connect, store

EVENTS = 1_000_000
_SEEDS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """Pages over databases of three sizes."""

    none: AdminPage
    one: AdminPage
    many: AdminPage


@pytest.fixture(scope="session")
def sites(stack: Endpoints) -> Iterator[Sites]:
    with ExitStack() as resources:
        databases = [resources.enter_context(admin_database(stack)) for _ in range(3)]
        _none, one, many = databases
        store(one, [odd_events()[0]])
        _fill(many)
        pages = [resources.enter_context(served(database)) for database in databases]
        yield Sites(none=pages[0], one=pages[1], many=pages[2])


def odd_events() -> list[AuditEvent]:
    """The newest events: long names, right-to-left text, emoji, and a nested payload."""
    now = time.time_ns()
    payload = {
        "name": "DEPLOY_KEY",
        "note": 'She said: "متغير جديد", <b>not bold</b> & 👩‍🚀',
        "before": {"visibility": "private", "ttl_seconds": 3600, "rotated_at": None},
        "after": {"visibility": "restricted", "ttl_seconds": 86400, "rotated_at": "2026-01-31T09:12:44Z"},
        "allowed": ["main", "release/2026.1", "hotfix/שלום-עולם"],
        "is_inherited": False,
        "ratio": 0.125,
    }
    acme = Entity(id="org-acme", type="organization", name="Acme")
    ada = Entity(
        id="user-7", type="user", name="Ada Byron", attributes={"ip": "2001:db8::7", "email": "ada@acme.example"}
    )
    long = "The quarterly compliance and release-engineering working group (Europe, Middle East and Africa) " * 3
    rows: list[dict[str, object]] = [
        {
            "action": "project.env_var.create",
            "actor": ada,
            "target": Entity(id="project-4711", type="project", name="billing-service"),
        },
        {
            "action": "context.create",
            "actor": Entity(id="user-12", type="user", name="نادية عبد الرحمن"),
            "target": Entity(id="context-הקשר", type="context", name="הקשר ייצור ראשי (prod)"),
        },
        {
            "action": "project.settings.update",
            "actor": Entity(id="user-31", type="user", name="👩‍🚀 Zoë Ångström 🏳️‍🌈"),
            "target": Entity(id="p-🚀", type="project", name="🚀🚀 launchpad 🚀🚀"),
            "success": False,
        },
        {
            "action": "workflow.job.approve",
            "actor": Entity(id="svc-" + "0123456789abcdef" * 8, type="service_account_with_a_long_type"),
            "target": Entity(id="job-" + "x" * 200, type="job", name=long),
        },
        {
            "action": "billing.invoice.line_item.write_off-reversal.approve",
            "actor": ada,
            "target": Entity(id="invoice-1", type="invoice"),
            "scope": None,
            "request": None,
            "metadata": {},
        },
        {
            "action": "user.logged_in",
            "actor": Entity(id="user-40", type="user", name="刘洋"),
            "target": Entity(id="user-40", type="user", name="刘洋"),
            "success": False,
        },
    ]
    return [
        AuditEvent.build(
            **{
                "payload": payload,
                "occurred_at": now - number * 47 * NANOSECONDS - 123_456_789,
                "metadata": {"region": "eu-central-1", "client": "web", "مفتاح": "قيمة"},
                "id": uuid7(),
                "scope": acme,
                "success": True,
                "request": Request(id="req-8c1f52", attributes={"ip": "2001:db8::7", "user_agent": "Firefox/151.0"}),
                **row,
            }  # type: ignore[arg-type]
        )
        for number, row in enumerate(rows)
    ]


def _fill(settings: ClickHouseSettings) -> None:
    """Insert a million events of the last year, made from the demo events, with daily peaks and a night of failures."""
    now = datetime.now(UTC)
    seeds = list(demo_events(_SEEDS, now=time.time_ns(), seed=7))
    odd = odd_events()
    store(settings, [*odd, *seeds])
    client = connect(settings)
    client.command(
        f"INSERT INTO {settings.clickhouse_database}.event_log "
        "SELECT action, actor, target, payload, moment, metadata, "
        "generateUUIDv7(cityHash64(kafka_offset, copy)), version, scope, "
        "moment NOT BETWEEN {bad_from:DateTime64} AND {bad_to:DateTime64} AND success, request, "
        "cityHash64(kafka_offset, copy), moment + INTERVAL 1 SECOND, kafka_topic, kafka_topic_id, "
        "toInt32(copy % 6), toInt64(kafka_offset * 1000 + copy) FROM ("
        "SELECT *, copy, cityHash64(copy, kafka_offset) / 18446744073709551615. AS part, "
        "{now:DateTime64} - toIntervalMillisecond(toUInt64(pow(part, 1.25) * 360 * 86400000) + 600000) AS moment "
        f"FROM {settings.clickhouse_database}.event_log ARRAY JOIN range({{copies:UInt32}}) AS copy "
        "WHERE kafka_offset >= {seeds:Int64}) "
        "WHERE cityHash64(copy, kafka_offset, 'day') % 100 < 45 + 55 * sin(toHour(moment) / 24 * 3.14159)",
        parameters={
            "now": now, "seeds": len(odd), "copies": round(EVENTS / _SEEDS * 1.27),
            "bad_from": now - timedelta(days=9, hours=14), "bad_to": now - timedelta(days=9, hours=3),
        },
        settings={"max_partitions_per_insert_block": 0, "max_insert_threads": 2},
        use_database=False,
    )  # fmt: skip
    client.command(
        f"INSERT INTO {settings.clickhouse_database}.ledger "
        "(topic, topic_id, partition, first_offset, last_offset, read, stored, "
        "duplicates, conflicts, invalid, expired, instance, fencing_time, written_at) "
        "SELECT 'audit.events', generateUUIDv4(0), "
        "toInt32(number), 0, 99, 100, 99, 1, 0, 0, 0, 'sink', 1, {now:DateTime64} - toIntervalSecond(number) "
        "FROM numbers(6)",
        parameters={"now": now},
        use_database=False,
    )
    client.close()
