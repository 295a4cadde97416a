"""What the page finds, against what is known to be there."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from uuid import UUID

import pytest

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.events.cursors import Cursor
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.event_store import EventStore, Page, policy_value
from auditstream_admin.events.time_range import TimeRange
from auditstream_local.endpoints import Endpoints
from auditstream_schemas.event import AuditEvent, Entity
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import from_datetime
from tests.support.admin import ACME, AUDITOR, admin_database, as_page, desk
from tests.support.events import START, make_event
from tests.support.stored_events import awkward_events, clear, connect, store

WEEK = TimeRange(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))
EVERYTHING = EventFilter(time=WEEK)
EARLIER = datetime.now(UTC) - timedelta(minutes=5)


@pytest.fixture(scope="module")
def database(stack: Endpoints) -> Iterator[ClickHouseSettings]:
    with admin_database(stack) as settings:
        yield settings


@pytest.fixture
def log(database: ClickHouseSettings) -> Iterator[EventStore]:
    clear(database)
    made = EventStore(as_page(database))
    yield made
    made.close()


def now() -> int:
    return from_datetime(datetime.now(UTC))


def ids(page: Page) -> list[str]:
    return [line.id for line in page.lines]


def walk(
    log: EventStore, wanted: EventFilter, *, size: int, viewer: Viewer = AUDITOR, between: Callable[[], object] = int
) -> tuple[list[list[str]], Page]:
    """All pages from the newest on; ``between`` happens after each."""
    pages: list[list[str]] = []
    cursor: Cursor | None = None
    while True:
        page = log.page(viewer, wanted, cursor=cursor, size=size, now=now())
        pages.append(ids(page))
        if page.older is None:
            return pages, page
        cursor = page.older
        between()


def newest_first(events: list[AuditEvent]) -> list[str]:
    return [str(event.id) for event in sorted(events, key=lambda event: (event.occurred_at, str(event.id)))][::-1]


def test_pages_show_each_event_once_in_order_while_more_arrive(log: EventStore, database: ClickHouseSettings) -> None:
    # Many at the same instant, and days between others: both beyond a page and beyond a window.
    events = [
        make_event(number, occurred_at=START + timedelta(hours=40 * (number // 25), milliseconds=number // 5))
        for number in range(90)
    ]
    store(database, events, ingested_at=EARLIER)
    arrived: list[AuditEvent] = []

    def arrive() -> None:
        # Late ones, within what was shown, at its edge and beyond it.
        count = len(arrived)
        more = [replace(events[at], id=UUID(int=2**100 * (count + at + 1))) for at in (0, 24, 44, 65, 89)]
        store(database, more, ingested_at=datetime.now(UTC) + timedelta(seconds=1))
        arrived.extend(more)

    pages, last = walk(log, EVERYTHING, size=7, between=arrive)
    assert [*chain(*pages)] == newest_first(events)
    assert [len(page) for page in pages[:-1]] == [7] * (len(pages) - 1)
    assert arrived

    back: list[list[str]] = []
    cursor = last.newer
    while cursor is not None:
        page = log.page(AUDITOR, EVERYTHING, cursor=cursor, size=7, now=now())
        back.insert(0, ids(page))
        arrive()
        cursor = page.newer
    assert [*chain(*back), *pages[-1]] == newest_first(events)
    # Later, and asked for anew, all of them are there.
    fresh, _ = walk(EventStore(as_page(database)), EVERYTHING, size=1000)
    assert len(fresh[0]) >= len(events)


def test_copies_that_are_not_merged_yet_are_shown_once(log: EventStore, database: ClickHouseSettings) -> None:
    events = [make_event(number) for number in range(30)]
    client = connect(database)
    client.command(f"SYSTEM STOP MERGES {database.clickhouse_database}.event_log")
    for _ in range(3):
        store(database, events, ingested_at=EARLIER)
    assert client.query(f"SELECT count() FROM {database.clickhouse_database}.event_log").result_rows[0][0] == 90
    pages, _ = walk(log, EVERYTHING, size=4)
    assert [*chain(*pages)] == newest_first(events)
    assert len(log.events(AUDITOR, events[0].id)) == 1
    found = log.histogram(AUDITOR, EVERYTHING, span=EVERYTHING.time.span(now()))
    assert found is not None
    assert (found.events, found.failed, found.is_exact) == (30, 3, True)
    client.command(f"SYSTEM START MERGES {database.clickhouse_database}.event_log")
    client.close()


CONDITIONS: list[tuple[str, Callable[[AuditEvent], bool]]] = [
    ("action=context.create", lambda event: event.action == "context.create"),
    ("action=*.logged_?n&action=project.*", lambda event: event.action.startswith(("user.", "project."))),
    ("action=%25", lambda _event: False),
    ("action=context_create", lambda _event: False),
    ("actor=user-3", lambda event: event.actor.id == "user-3"),
    ("target=target-4", lambda event: event.target.id == "target-4"),
    ("scope=org-2", lambda event: event.scope is not None and event.scope.id == "org-2"),
    ("success=false", lambda event: not event.success),
    ("success=true&actor=user-1", lambda event: event.success and event.actor.id == "user-1"),
    ("request=request-7", lambda event: event.request is not None and event.request.id == "request-7"),
    ("meta=region%3Deu-central-1", lambda event: event.metadata.get("region") == "eu-central-1"),
    ("meta=region%3D", lambda event: event.metadata.get("region") == ""),
    ("meta=k%3D+padded+", lambda event: event.metadata.get("k") == " padded "),
    ("q=EVENT+17", lambda event: '"event 17"' in event.payload),
    ("q=vent", lambda _event: False),
    ("q=naïve", lambda event: "naïve" in event.payload),
    ("q=second", lambda event: "second" in event.payload),
    ("q=日本", lambda event: "日本" in event.payload),
    ("q=lf", lambda event: "LF" in event.payload),
]


@pytest.fixture(scope="module")
def many(stack: Endpoints) -> Iterator[tuple[ClickHouseSettings, list[AuditEvent]]]:
    events = [make_event(number) for number in range(60)]
    events += [event for event in awkward_events() if event.id not in {known.id for known in events}]
    events += [
        make_event(900, payload={"text": "first\nsecond NAÏVE and naïve", "place": "東京の日本橋"}),
        make_event(901, metadata={"region": ""}),
    ]
    with admin_database(stack) as settings:
        store(settings, events, ingested_at=EARLIER)
        yield settings, events


@pytest.mark.parametrize(("query", "holds"), CONDITIONS, ids=[query for query, _ in CONDITIONS])
def test_a_filter_finds_what_matches_and_nothing_else(
    many: tuple[ClickHouseSettings, list[AuditEvent]], query: str, holds: Callable[[AuditEvent], bool]
) -> None:
    settings, events = many
    made = desk(settings)
    with made.client(AUDITOR) as client:
        answer = client.get(f"/api/v1/events?range=30d&limit=1000&{query}").json()
    assert [found["id"] for found in answer["events"]] == newest_first([event for event in events if holds(event)])
    assert answer["next_cursor"] is None


def test_what_is_shown_is_what_was_stored(many: tuple[ClickHouseSettings, list[AuditEvent]]) -> None:
    settings, events = many
    made = desk(settings)
    with made.client(AUDITOR) as client:
        for event in events[-25:]:
            found = client.get(f"/api/v1/events/{event.id}")
            assert found.status_code == 200
            shown = json.loads(found.text)
            stored = shown.pop("kafka"), shown.pop("ingested_at")
            assert all(stored)
            assert AuditEvent.from_json(found.text.partition(',"ingested_at"')[0] + "}") == event
            page = client.get(f"/events/{event.id}", params={"tz": "Asia/Tokyo"})
            assert page.status_code == 200


def test_an_admin_finds_their_own_alone_whatever_they_ask_for(
    many: tuple[ClickHouseSettings, list[AuditEvent]],
) -> None:
    settings, events = many
    own = {str(event.id) for event in events if event.scope is not None and event.scope.id == "org-0"}
    made = desk(settings)
    with made.client(ACME) as client:
        seen = client.get("/api/v1/events?range=30d&limit=1000").json()["events"]
        assert {found["id"] for found in seen} == own
        for query, _ in CONDITIONS:
            found = client.get(f"/api/v1/events?range=30d&limit=1000&{query}").json()["events"]
            assert {one["id"] for one in found} <= own
            page = client.get(f"/events?range=30d&{query}").text
            assert not any(str(event.id) in page for event in events if str(event.id) not in own)
        for event in events:
            assert (client.get(f"/api/v1/events/{event.id}").status_code == 200) == (str(event.id) in own)


def test_the_tail_shows_what_arrives_once_whatever_the_clocks_say(
    log: EventStore, database: ClickHouseSettings
) -> None:
    store(database, [make_event(0)], ingested_at=datetime.now(UTC))
    first = log.arrivals(AUDITOR, EventFilter(), mark=None, now=now())
    assert [line.id for line in first.lines] == [str(make_event(0).id)]
    # Events of last week, stored by a sink whose clock is a minute behind; their offsets tell that they are new.
    events = [make_event(number) for number in range(4)]
    store(database, events[1:], ingested_at=datetime.now(UTC) - timedelta(minutes=1))
    second = log.arrivals(AUDITOR, EventFilter(), mark=first.mark, now=now(), size=2)
    assert [line.id for line in second.lines] == newest_first(events[1:3])
    assert second.is_cut
    third = log.arrivals(AUDITOR, EventFilter(), mark=second.mark, now=now())
    assert [line.id for line in third.lines] == [str(events[3].id)]
    assert log.arrivals(AUDITOR, EventFilter(), mark=third.mark, now=now()).lines == ()
    assert log.arrivals(ACME, EventFilter(), mark=None, now=now()).lines


def test_a_search_that_takes_too_long_says_how_far_it_came_and_goes_on(database: ClickHouseSettings) -> None:
    clear(database)
    events = [make_event(number, occurred_at=START - timedelta(days=4 * number)) for number in range(6)]
    store(database, events, ingested_at=EARLIER)
    hurried = EventStore(as_page(database), patience=-1)
    wanted = EventFilter(time=TimeRange(preset="30d"))
    found: list[str] = []
    cursor: Cursor | None = None
    given_up = 0
    for _ in range(40):
        page = hurried.page(AUDITOR, wanted, cursor=cursor, size=50, now=now())
        found += ids(page)
        given_up += page.searched_to is not None
        cursor = page.older
        if cursor is None:
            break
    assert cursor is None
    assert given_up >= 3
    assert found == newest_first(events)


def test_the_row_policy_of_the_documentation_lets_see_what_the_page_does(
    log: EventStore, database: ClickHouseSettings
) -> None:
    """Users and policies need a real server; the expression is evaluated here, with the setting's text in its place."""
    readme = (Path(__file__).parents[3] / "consumers" / "README.md").read_text("utf-8")
    found = re.search(
        r"CREATE ROW POLICY auditstream_scopes ON audit.event_log\s+USING (.*?)\s+TO auditstream", readme, re.DOTALL
    )
    assert found is not None
    store(database, [*(make_event(number) for number in range(9)), make_event(9, scope=None)], ingested_at=EARLIER)
    store(database, [make_event(10, scope=Entity(id="a,'b\\", type="organization"))], ingested_at=EARLIER)
    odd = Viewer(subject="x", name="x", role=Role.ADMIN, scopes=("a,'b\\", "org-2"))
    client = connect(database)
    for viewer in (ACME, odd, AUDITOR):
        shown = set(ids(log.page(viewer, EVERYTHING, cursor=None, size=50, now=now())))
        quoted = policy_value(viewer)
        # A server may take the quotes for part of the text, or not.
        for text in (quoted, quoted.strip("'")):
            policy = found[1].replace("getSetting('SQL_auditstream_scopes')", "{setting:String}")
            rows = client.query(
                f"SELECT toString(id) FROM {database.clickhouse_database}.event_log WHERE {policy}",
                parameters={"setting": text},
            ).result_rows
            assert {row[0] for row in rows} == shown
    for text in ("none", "", "''", "6F72672D"):
        policy = found[1].replace("getSetting('SQL_auditstream_scopes')", "{setting:String}")
        sql = f"SELECT count() FROM {database.clickhouse_database}.event_log WHERE {policy}"
        assert client.query(sql, parameters={"setting": text}).result_rows == [(0,)]
    client.close()


def test_nobody_is_an_admin_of_events_without_a_scope(log: EventStore, database: ClickHouseSettings) -> None:
    store(database, [make_event(0, scope=None)], ingested_at=EARLIER)
    assert ids(log.page(AUDITOR, EVERYTHING, cursor=None, size=5, now=now()))
    admin = Viewer(subject="x", name="x", role=Role.ADMIN, scopes=("org-0", "org-1", "org-2"))
    assert log.page(admin, EVERYTHING, cursor=None, size=5, now=now()).lines == ()
