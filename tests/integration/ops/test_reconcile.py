import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from auditstream_ops.clickhouse import connect
from auditstream_ops.ledger.reconcile import ReconcileReport, reconcile
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import ClickHouseSettings
from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.stored_events import store


@pytest.fixture
def stored(tenant: Tenant) -> Tenant:
    """A tenant with 1,000 events."""
    _store(tenant, [make_event(number) for number in range(1_000)])
    return tenant


def test_one_row_for_each_id_is_healthy(stored: Tenant) -> None:
    report = _reconcile(stored)
    assert (report.rows, report.visible, report.uncollapsed) == (1_000, 1_000, 0)
    assert report.repeated == []
    status, out = _command(stored)
    assert status == 0
    assert out.splitlines()[-1] == "no id is visible more than once"


def test_an_empty_table_is_healthy(tenant: Tenant) -> None:
    assert _reconcile(tenant).rows == 0
    assert _command(tenant)[0] == 0


def test_rows_that_no_reader_sees_are_counted(stored: Tenant) -> None:
    _stop_merges(stored)
    _copy(stored, 5, "")
    report = _reconcile(stored)
    assert (report.rows, report.visible, report.uncollapsed, report.repeated) == (1_001, 1_000, 1, [])
    status, out = _command(stored)
    assert status == 0
    assert "1 rows will be removed by a merge" in out


@pytest.mark.parametrize(
    ("change", "has_other_key"),
    [
        ("occurred_at + INTERVAL 1 NANOSECOND AS occurred_at", True),
        ("occurred_at - INTERVAL 40 DAY AS occurred_at", True),
        ("tuple('other', scope.type, scope.name, scope.attributes) AS scope", True),
        ("content_hash + 1 AS content_hash", False),
    ],
)
def test_an_id_that_is_visible_twice_is_listed_with_its_rows(stored: Tenant, change: str, has_other_key: bool) -> None:
    _copy(stored, 5, f"{change}, toInt64(70005) AS kafka_offset, ingested_at - INTERVAL 1 SECOND AS ingested_at")
    report = _reconcile(stored)
    [repeated] = report.repeated
    assert (repeated.id, repeated.visible, repeated.has_other_key) == (make_event(5).id, 2, has_other_key)
    assert (report.other_keys, report.other_contents) == (int(has_other_key), int(not has_other_key))
    # The row that was ingested first comes first.
    assert [row.offset for row in repeated.rows] == [70_005, 5]
    assert report.visible == 1_001
    status, out = _command(stored)
    assert status == 1
    assert f"id {make_event(5).id} is visible 2 times" in out
    status, out = _command(stored, "--json")
    assert status == 1
    assert json.loads(out)["repeated"][0]["id"] == str(make_event(5).id)


def test_slices_have_every_id_once(tenant: Tenant) -> None:
    _store(tenant, [make_event(number * 1_000_003) for number in range(5_000)])
    _copy(tenant, 0, "occurred_at + INTERVAL 1 DAY AS occurred_at", everything=True)
    for slice_ids in (100, 700, 100_000):
        report = _reconcile(tenant, slice_ids=slice_ids)
        assert (report.rows, report.visible, report.other_keys) == (10_000, 10_000, 5_000)
        assert len(report.repeated) == 100
        assert len({repeated.id for repeated in report.repeated}) == 100


def _settings(tenant: Tenant) -> ClickHouseSettings:
    return tenant.clickhouse("operator")


def _store(tenant: Tenant, events: Sequence[AuditEvent]) -> None:
    store(_settings(tenant), events)


def _reconcile(tenant: Tenant, *, slice_ids: int = 2_000_000) -> ReconcileReport:
    return reconcile(connect(_settings(tenant)), tenant.database, slice_ids=slice_ids)


def _stop_merges(tenant: Tenant) -> None:
    tenant.administrator().command(f"SYSTEM STOP MERGES {tenant.database}.event_log")


def _copy(tenant: Tenant, offset: int, changes: str, *, everything: bool = False) -> None:
    columns = f"* REPLACE ({changes})" if changes else "*"
    condition = "1" if everything else f"kafka_offset = {offset}"
    tenant.administrator().command(
        f"INSERT INTO {tenant.database}.event_log SELECT {columns} "
        f"FROM (SELECT * FROM {tenant.database}.event_log WHERE {condition})",
        settings={"max_partitions_per_insert_block": 0},
    )


def _command(tenant: Tenant, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "auditstream_ops", "reconcile", *arguments],
        env={**os.environ, **tenant.env},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout
