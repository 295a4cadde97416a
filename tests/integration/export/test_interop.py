"""Other programs read an export back to the very values."""

import csv
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from auditstream_export import ExportRequest, export_events
from auditstream_schemas.event import FIELDS, AuditEvent
from auditstream_schemas.timestamp import format_timestamp, from_datetime
from tests.support.events import START
from tests.support.fix_stack import Tenant
from tests.support.stored_events import awkward_events, store

csv.field_size_limit(2_000_000)
ALL = ExportRequest(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))
Rows = list[dict[str, str]]


def _ask(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def exported(tenant: Tenant, tmp_path: Path) -> Path:
    settings = tenant.clickhouse("exporter")
    store(settings, awkward_events())
    for suffix in ("", ".gz", ".zst"):
        export_events(settings, ALL, tmp_path / f"events.csv{suffix}")
    return tmp_path / "events.csv"


def _python(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def _duckdb(path: Path) -> Rows:
    rows = _ask(f"SELECT * FROM read_csv('{path}', all_varchar = true, nullstr = '\\0', strict_mode = true)")
    return [dict(zip(FIELDS, row, strict=True)) for row in rows]


def _pandas(path: Path) -> Rows:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [{str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")]


def _expected(event: AuditEvent) -> dict[str, object]:
    fields: dict[str, object] = json.loads(event.to_json())
    return {name: fields.get(name, "") for name in FIELDS} | {"payload": event.payload}


def _values(row: dict[str, str]) -> dict[str, object]:
    """The row's cells as values, the payload as its text."""
    nested = {name: json.loads(row[name]) for name in ("actor", "target", "metadata")}
    optional = {name: json.loads(row[name]) if row[name] else "" for name in ("scope", "request")}
    return {**row, **nested, **optional, "version": int(row["version"]), "success": row["success"] == "true"}


@pytest.mark.parametrize("read", [_python, _duckdb, _pandas])
def test_other_programs_read_the_same_values(exported: Path, read: Callable[[Path], Rows]) -> None:
    rows = read(exported)
    assert [list(row) for row in rows] == [list(FIELDS)] * len(rows)
    assert [_values(row) for row in rows] == [_expected(event) for event in awkward_events()]


def test_other_programs_read_the_same_cells(exported: Path) -> None:
    rows = _python(exported)
    assert _duckdb(exported) == rows
    assert _pandas(exported) == rows


def test_other_programs_read_compressed_files(exported: Path) -> None:
    rows = _python(exported)
    assert _duckdb(exported.with_name("events.csv.gz")) == rows
    assert _duckdb(exported.with_name("events.csv.zst")) == rows
    assert _pandas(exported.with_name("events.csv.gz")) == rows


def test_duckdb_reads_typed_columns(exported: Path) -> None:
    table = f"read_csv('{exported}', types = {{'id': 'UUID', 'occurred_at': 'VARCHAR'}})"
    kinds = {name: kind for name, kind, *_ in _ask(f"DESCRIBE SELECT * FROM {table}")}
    assert (kinds["version"], kinds["success"], kinds["id"]) == ("BIGINT", "BOOLEAN", "UUID")
    rows = _ask(f"SELECT version, success, id, occurred_at, payload::JSON ->> 'big', actor::JSON ->> 'id' FROM {table}")
    expected = [
        (
            event.version,
            event.success,
            event.id,
            format_timestamp(event.occurred_at),
            "123456789012345678901234567890" if "big" in event.payload else None,
            event.actor.id,
        )
        for event in awkward_events()
    ]
    assert rows == expected


def test_duckdb_reads_times_to_the_nanosecond(exported: Path) -> None:
    rows = _ask(f"SELECT epoch_ns(occurred_at::TIMESTAMP_NS) FROM read_csv('{exported}', all_varchar = true)")
    assert [moment for (moment,) in rows] == [event.occurred_at for event in awkward_events()]


def test_pandas_reads_times_to_the_nanosecond(exported: Path) -> None:
    frame = pd.read_csv(exported, dtype=str, keep_default_na=False)
    moments = pd.to_datetime(frame["occurred_at"], format="ISO8601", utc=True)
    assert [moment.value for moment in moments] == [event.occurred_at for event in awkward_events()]
