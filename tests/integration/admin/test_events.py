"""The events that the page and the API show, compared with the stored events."""

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
from tests.support.admin import ACME, AUDITOR, admin_database, admin_page, as_page
from tests.support.events import START, make_event
from tests.support.stored_events import awkward_events, clear, connect, store

WEEK = TimeRange(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))
EVERYTHING = EventFilter(time=WEEK)
ROOT = Path(__file__).parents[3]
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
    log: EventStore,
    event_filter: EventFilter,
    *,
    size: int,
    viewer: Viewer = AUDITOR,
    between: Callable[[], object] = int,
) -> tuple[list[list[str]], Page]:
    """All pages, newest first; calls ``between`` after each page."""
    pages: list[list[str]] = []
    cursor: Cursor | None = None
    while True:
        page = log.page(viewer, event_filter, cursor=cursor, size=size, now=now())
        pages.append(ids(page))
        if page.older is None:
            return pages, page
        cursor = page.older
        between()


def newest_first(events: list[AuditEvent]) -> list[str]:
    return [str(event.id) for event in sorted(events, key=lambda event: (event.occurred_at, str(event.id)))][::-1]


def test_pages_show_each_event_once_while_more_arrive(log: EventStore, database: ClickHouseSettings) -> None:
    # Many events at one instant and days between others: more than a page and longer than a window.
    events = [
        make_event(number, occurred_at=START + timedelta(hours=40 * (number // 25), milliseconds=number // 5))
        for number in range(90)
    ]
    store(database, events, ingested_at=EARLIER)
    arrived: list[AuditEvent] = []

    def arrive() -> None:
        # Late events within the pages shown so far, at their edge and beyond it.
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
    # A new first page includes them.
    fresh, _ = walk(EventStore(as_page(database)), EVERYTHING, size=1000)
    assert len(fresh[0]) >= len(events)


def test_unmerged_copies_are_shown_once(log: EventStore, database: ClickHouseSettings) -> None:
    events = [make_event(number) for number in range(30)]
    client = connect(database)
    client.command(f"SYSTEM STOP MERGES {database.clickhouse_database}.event_log")
    for _ in range(3):
        store(database, events, ingested_at=EARLIER)
    assert client.query(f"SELECT count() FROM {database.clickhouse_database}.event_log").result_rows[0][0] == 90
    pages, _ = walk(log, EVERYTHING, size=4)
    assert [*chain(*pages)] == newest_first(events)
    assert len(log.events(AUDITOR, events[0].id)) == 1
    histogram = log.histogram(AUDITOR, EVERYTHING, span=EVERYTHING.time.span(now()))
    assert histogram is not None
    assert (histogram.events, histogram.failed, histogram.is_exact) == (30, 3, True)
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
def test_a_filter_finds_exactly_the_matching_events(
    many: tuple[ClickHouseSettings, list[AuditEvent]], query: str, holds: Callable[[AuditEvent], bool]
) -> None:
    settings, events = many
    made = admin_page(settings)
    with made.client(AUDITOR) as client:
        answer = client.get(f"/api/v1/events?range=30d&limit=1000&{query}").json()
    assert [event["id"] for event in answer["events"]] == newest_first([event for event in events if holds(event)])
    assert answer["next_cursor"] is None


def test_an_event_is_shown_exactly_as_stored(many: tuple[ClickHouseSettings, list[AuditEvent]]) -> None:
    settings, events = many
    made = admin_page(settings)
    with made.client(AUDITOR) as client:
        for event in events[-25:]:
            answer = client.get(f"/api/v1/events/{event.id}")
            assert answer.status_code == 200
            document = json.loads(answer.text)
            stored = document.pop("kafka"), document.pop("ingested_at")
            assert all(stored)
            assert AuditEvent.from_json(answer.text.partition(',"ingested_at"')[0] + "}") == event
            page = client.get(f"/events/{event.id}", params={"tz": "Asia/Tokyo"})
            assert page.status_code == 200


def test_an_admin_finds_events_of_their_scopes_only_with_every_filter(
    many: tuple[ClickHouseSettings, list[AuditEvent]],
) -> None:
    settings, events = many
    own = {str(event.id) for event in events if event.scope is not None and event.scope.id == "org-0"}
    made = admin_page(settings)
    with made.client(ACME) as client:
        listed = client.get("/api/v1/events?range=30d&limit=1000").json()["events"]
        assert {event["id"] for event in listed} == own
        for query, _ in CONDITIONS:
            matching = client.get(f"/api/v1/events?range=30d&limit=1000&{query}").json()["events"]
            assert {event["id"] for event in matching} <= own
            page = client.get(f"/events?range=30d&{query}").text
            assert not any(str(event.id) in page for event in events if str(event.id) not in own)
        for event in events:
            assert (client.get(f"/api/v1/events/{event.id}").status_code == 200) == (str(event.id) in own)


def test_the_tail_shows_each_new_event_once_despite_wrong_clocks(log: EventStore, database: ClickHouseSettings) -> None:
    store(database, [make_event(0)], ingested_at=datetime.now(UTC))
    first = log.arrivals(AUDITOR, EventFilter(), mark=None, now=now())
    assert [line.id for line in first.lines] == [str(make_event(0).id)]
    # Events of last week from a sink whose clock is a minute behind; only their offsets show that they are new.
    events = [make_event(number) for number in range(4)]
    store(database, events[1:], ingested_at=datetime.now(UTC) - timedelta(minutes=1))
    second = log.arrivals(AUDITOR, EventFilter(), mark=first.mark, now=now(), size=2)
    assert [line.id for line in second.lines] == newest_first(events[1:3])
    assert second.is_cut
    third = log.arrivals(AUDITOR, EventFilter(), mark=second.mark, now=now())
    assert [line.id for line in third.lines] == [str(events[3].id)]
    assert log.arrivals(AUDITOR, EventFilter(), mark=third.mark, now=now()).lines == ()
    assert log.arrivals(ACME, EventFilter(), mark=None, now=now()).lines


def test_a_slow_search_returns_its_position_and_can_be_continued(database: ClickHouseSettings) -> None:
    clear(database)
    events = [make_event(number, occurred_at=START - timedelta(days=4 * number)) for number in range(6)]
    store(database, events, ingested_at=EARLIER)
    impatient = EventStore(as_page(database), patience=-1)
    event_filter = EventFilter(time=TimeRange(preset="30d"))
    listed: list[str] = []
    cursor: Cursor | None = None
    unfinished = 0
    for _ in range(40):
        page = impatient.page(AUDITOR, event_filter, cursor=cursor, size=50, now=now())
        listed += ids(page)
        unfinished += page.searched_to is not None
        cursor = page.older
        if cursor is None:
            break
    assert cursor is None
    assert unfinished >= 3
    assert listed == newest_first(events)


def test_the_documented_row_policy_shows_the_same_events_as_the_page(
    log: EventStore, database: ClickHouseSettings
) -> None:
    """Evaluates the policy's expression with the value of the setting in its place."""
    pages = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "consumers").rglob("*.md")))
    policies = re.findall(
        r"CREATE ROW POLICY auditstream_scopes ON audit.event_log\s+USING (.*?)\s+TO auditstream", pages, re.DOTALL
    )
    assert policies
    store(database, [*(make_event(number) for number in range(9)), make_event(9, scope=None)], ingested_at=EARLIER)
    store(database, [make_event(10, scope=Entity(id="a,'b\\", type="organization"))], ingested_at=EARLIER)
    odd = Viewer(subject="x", name="x", role=Role.ADMIN, scopes=("a,'b\\", "org-2"))
    client = connect(database)
    for policy in policies:
        condition = policy.replace("getSetting('SQL_auditstream_scopes')", "{setting:String}")
        sql = f"SELECT toString(id) FROM {database.clickhouse_database}.event_log WHERE {condition}"

        def visible(setting: str, sql: str = sql) -> set[str]:
            return {row[0] for row in client.query(sql, parameters={"setting": setting}).result_rows}

        for viewer in (ACME, odd, AUDITOR):
            listed = set(ids(log.page(viewer, EVERYTHING, cursor=None, size=50, now=now())))
            quoted = policy_value(viewer)
            # Some servers keep the quotes as part of the value.
            assert visible(quoted) == visible(quoted.strip("'")) == listed
        for value in ("none", "", "''", "6F72672D"):
            assert visible(value) == set()
    client.close()


def test_admins_do_not_see_events_without_a_scope(log: EventStore, database: ClickHouseSettings) -> None:
    store(database, [make_event(0, scope=None)], ingested_at=EARLIER)
    assert ids(log.page(AUDITOR, EVERYTHING, cursor=None, size=5, now=now()))
    admin = Viewer(subject="x", name="x", role=Role.ADMIN, scopes=("org-0", "org-1", "org-2"))
    assert log.page(admin, EVERYTHING, cursor=None, size=5, now=now()).lines == ()
