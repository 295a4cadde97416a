"""The time that the page waits for its rows, and the number of rows that are read for it."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl
from uuid import UUID

from clickhouse_connect.driver.client import Client

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.event_store import EventStore
from auditstream_schemas.settings import ClickHouseSettings
from tests.benchmarks.figures import Figures
from tests.benchmarks.growth import bytes_on_disk, grow, take_sample, wait_for_merges
from tests.benchmarks.plan import BenchPlan
from tests.benchmarks.site import site

PAGE = 50
_ROUNDS = 20
_LINKS = 100
_RARE_EVENTS = 150
_AUDITOR = Viewer(subject="bench", name="bench", role=Role.AUDITOR)
_ADMIN = Viewer(subject="bench", name="bench", role=Role.ADMIN, scopes=("org-acme",))

_RARE = "cityHash64(moment) % {every} = 0"


def _entity(name: str) -> str:
    inner = ", ".join(f"sample.{name}.{part}" for part in ("type", "name", "attributes"))
    return f"(if({_RARE}, 'rare-{name}', sample.{name}.id), {inner}) AS {name}"


# About a hundred events of the whole year have rare values. A request has three events, as in real services; the
# requests of the demo's events would repeat among millions.
_REPLACING = f""",
        if({_RARE}, 'rare.thing.happen', sample.action) AS action,
        {_entity("actor")},
        {_entity("target")},
        (multiIf({_RARE}, 'rare-request', sample.request.id = '', '',
            concat('req-', hex(cityHash64(intDiv(toUnixTimestamp64Nano(moment), {{apart}}))))),
            sample.request.attributes) AS request,
        if({_RARE}, map('rare', 'rare-value'), sample.metadata) AS metadata,
        if({_RARE}, '{{{{"note":"a rareword in between"}}}}', sample.payload) AS payload"""

FILTERS = {
    "none": "",
    "day": "range=24h",
    "action": "action=context.*",
    "action.rare": "action=rare.*",
    "action.absent": "action=nothing.happened",
    "actor": "actor=user-77",
    "actor.rare": "actor=rare-actor",
    "actor.absent": "actor=nobody",
    "target": "target=4711",
    "target.rare": "target=rare-target",
    "target.absent": "target=nothing",
    "scope": "scope=org-acme",
    "scope.absent": "scope=org-nobody",
    "failed": "success=false",
    "request.rare": "request=rare-request",
    "request.absent": "request=none",
    "metadata": "meta=region%3Deu-central-1",
    "metadata.rare": "meta=rare%3Drare-value",
    "metadata.absent": "meta=region%3Dnowhere",
    "text": "q=production",
    "text.rare": "q=rareword",
    "text.absent": "q=nosuchword",
}
"""Filters on twelve months that match many events, about a hundred events, or none."""

HISTOGRAMS = ("none", "day", "action", "actor.rare", "scope", "failed", "request.absent")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    p95: float
    rows: int


def admin(plan: BenchPlan, figures: Figures) -> None:
    """The first page with each filter, the histogram and permalinks, at so many million rows."""
    with site("local", plan.scratch) as where, where.database() as database, where.client() as client:
        take_sample(plan, where, database, client)
        held = 0
        store = EventStore(
            ClickHouseSettings(clickhouse_url=where.endpoints.clickhouse_url, clickhouse_database=database)
        )
        for size in plan.sizes:
            apart = 3 * 359 * 86_400 * 1_000_000_000 // (max(plan.sizes) * 1_000_000)
            every = max(plan.sizes) * 1_000_000 // _RARE_EVENTS
            replacing = _REPLACING.format(every=every, apart=apart)
            grow(client, database, held * 1_000_000, size * 1_000_000, replacing=replacing)
            held = size
            wait_for_merges(client, database)
            figures.progress(f"{size} million rows")
            _pages(store, client, figures, f"admin.{size}")
            _histograms(store, client, figures, f"admin.{size}")
            _links(store, client, figures, f"admin.{size}", database)
            bytes_on_disk(client, database, figures, f"admin.{size}.bytes_per_event")
            _indices(client, database, figures, f"admin.{size}.bytes_per_event.indices", size * 1_000_000)
        store.close()


def _pages(store: EventStore, client: Client, figures: Figures, name: str) -> None:
    worst = 0.0
    for who, viewer in (("auditor", _AUDITOR), ("admin", _ADMIN)):
        for filter_name, query in FILTERS.items():
            event_filter = _filter(query)

            def first_page(viewer: Viewer = viewer, event_filter: EventFilter = event_filter) -> int:
                return len(store.page(viewer, event_filter, cursor=None, size=PAGE, now=time.time_ns()).lines)

            measured = _measured(client, [first_page] * _ROUNDS)
            worst = max(worst, measured.p95)
            note = f"{measured.rows:,} rows read, {first_page()} shown"
            figures.add(f"{name}.page.{who}.{filter_name}", measured.p95, "ms", note)
    figures.add(f"{name}.page", worst, "ms", "the slowest of these")


def _histograms(store: EventStore, client: Client, figures: Figures, name: str) -> None:
    worst = 0.0
    for who, viewer in (("auditor", _AUDITOR), ("admin", _ADMIN)):
        for filter_name in HISTOGRAMS:
            event_filter = _filter(FILTERS[filter_name])

            def counted(viewer: Viewer = viewer, event_filter: EventFilter = event_filter) -> int:
                histogram = store.histogram(viewer, event_filter, span=event_filter.time.span(time.time_ns()))
                return 0 if histogram is None else histogram.events

            measured = _measured(client, [counted] * (_ROUNDS // 2))
            worst = max(worst, measured.p95)
            note = f"{measured.rows:,} rows read, {counted():,} counted"
            figures.add(f"{name}.histogram.{who}.{filter_name}", measured.p95, "ms", note)
    figures.add(f"{name}.histogram", worst, "ms", "the slowest of these")


def _links(store: EventStore, client: Client, figures: Figures, name: str, database: str) -> None:
    rows = client.query(
        f"SELECT toString(id) FROM {database}.event_log WHERE cityHash64(id) % 1000 = 7 LIMIT {{limit:UInt32}}",
        parameters={"limit": _LINKS * 20},
    ).result_rows
    ids = [UUID(row[0]) for row in random.Random(1).sample(list(rows), min(_LINKS, len(rows)))]

    def opened(one: UUID) -> Callable[[], int]:
        return lambda: len(store.events(_AUDITOR, one))

    measured = _measured(client, [opened(one) for one in ids])
    figures.add(f"{name}.permalink", measured.p95, "ms", f"{measured.rows:,} rows read")


def _measured(client: Client, calls: Sequence[Callable[[], int]]) -> _Measured:
    """The 95th percentile of the calls, and the rows that the engine read for one, merges left out."""
    calls[0]()
    before = _rows_read(client)
    milliseconds = []
    for call in calls:
        started = time.monotonic()
        call()
        milliseconds.append((time.monotonic() - started) * 1000)
    rows = (_rows_read(client) - before) // len(calls)
    return _Measured(p95=sorted(milliseconds)[int(len(milliseconds) * 0.95) - 1], rows=rows)


def _rows_read(client: Client) -> int:
    answer = client.query("SELECT sum(value) FROM system.events WHERE event = 'SelectedRows'")
    return int(answer.result_rows[0][0])


def _indices(client: Client, database: str, figures: Figures, name: str, rows: int) -> None:
    for index, size in client.query(
        "SELECT name, data_compressed_bytes FROM system.data_skipping_indices "
        "WHERE database = {database:String} AND table = 'event_log' ORDER BY 2 DESC",
        parameters={"database": database},
    ).result_rows:
        figures.add(f"{name}.{index}", size / rows, "bytes", "of these")


def _filter(query: str) -> EventFilter:
    pairs = parse_qsl(query)
    return EventFilter.read(pairs if any(key == "range" for key, _ in pairs) else [*pairs, ("range", "12mo")])
