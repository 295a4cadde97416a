"""The completeness of the ledger, and a page on which exports are not configured."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from auditstream_admin import AdminSettings, create_app
from auditstream_admin.events.event_store import EventStore
from auditstream_local.endpoints import Endpoints
from auditstream_schemas.settings import ClickHouseSettings
from tests.support.admin import ACME, KEY, URL, AdminPage, MemoryExports, admin_database, as_page
from tests.support.stored_events import connect

_TOPIC_ID = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def database(stack: Endpoints) -> Iterator[ClickHouseSettings]:
    with admin_database(stack) as settings:
        yield settings


def _line(
    settings: ClickHouseSettings,
    first: int,
    last: int,
    *,
    read: int,
    stored: int,
    partition: int = 0,
    fencing_time: int = 1,
) -> None:
    client = connect(settings)
    client.command(
        f"INSERT INTO {settings.clickhouse_database}.ledger (topic, topic_id, partition, first_offset, last_offset, "
        "read, stored, duplicates, conflicts, invalid, expired, instance, fencing_time, written_at) VALUES "
        f"('t', '{_TOPIC_ID}', {partition}, {first}, {last}, {read}, {stored}, 1, 0, 0, 0, 's', {fencing_time}, "
        f"toDateTime64({1_700_000_000 + last}, 3, 'UTC'))",
        use_database=False,
    )
    client.close()


def test_the_ledger_balances_until_a_line_does_not_add_up(database: ClickHouseSettings) -> None:
    def completeness() -> tuple[datetime | None, int]:
        stored = EventStore(as_page(database)).completeness()
        until = None if stored.until is None else datetime.fromtimestamp(stored.until / 1000, UTC)
        return until, stored.faults

    assert completeness() == (None, 0)
    _line(database, 0, 9, read=10, stored=9)
    # Offsets without a record, and a line written twice.
    _line(database, 10, 19, read=7, stored=6)
    _line(database, 10, 19, read=7, stored=6)
    _line(database, 5, 7, read=3, stored=2, partition=1)
    assert completeness() == (datetime.fromtimestamp(1_700_000_019, UTC), 0)
    _line(database, 8, 9, read=2, stored=2, partition=1)
    assert completeness()[1] == 1, "a ledger line that does not add up"
    _line(database, 25, 29, read=5, stored=4)
    assert completeness()[1] == 2, "offsets without a ledger line"


def test_a_page_without_exports_says_how_to_configure_them(database: ClickHouseSettings) -> None:
    settings = AdminSettings(
        clickhouse_url=database.clickhouse_url,
        clickhouse_database=database.clickhouse_database,
        admin_url=URL,
        admin_secret=KEY,  # type: ignore[arg-type] # a secret is made of it
    )
    app = create_app(settings, lambda _event: None)
    admin_page = AdminPage(app=app, settings=settings, emitted=[], exports=MemoryExports())
    with admin_page.client(ACME) as client:
        for path in ("/events", "/exports"):
            assert "Exports are not configured" in client.get(path).text
            assert "auditstream exporter" in client.get(path).text
