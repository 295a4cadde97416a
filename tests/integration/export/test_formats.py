"""The same events in every format, with one content and one order."""

import csv
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from auditstream_export import ExportRequest, OutputFormat, event_json_from_row, export_events, format_of
from auditstream_schemas.errors import ExportError
from auditstream_schemas.event import FIELDS, AuditEvent
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import from_datetime
from tests.support.events import START, make_event
from tests.support.fix_stack import Tenant
from tests.support.relay import Send, relay
from tests.support.stored_events import awkward_events, connect, store

csv.field_size_limit(2_000_000)
ALL = ExportRequest(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))


@pytest.fixture
def settings(tenant: Tenant) -> ClickHouseSettings:
    return tenant.clickhouse("exporter")


def test_ndjson_is_what_the_sdk_writes(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, awkward_events())
    export_events(
        settings, ALL, tmp_path / "all.ndjson.gz", output_format=OutputFormat(format=format_of("all.ndjson.gz"))
    )
    export_events(settings, ALL, tmp_path / "all.ndjson", output_format=OutputFormat(format="ndjson"))
    lines = (tmp_path / "all.ndjson").read_bytes().splitlines(keepends=True)
    assert [AuditEvent.from_json(line) for line in lines] == awkward_events()
    assert all(line.endswith(b"}\n") for line in lines)
    assert [list(json.loads(line)) for line in lines] == [list(json.loads(e.to_json())) for e in awkward_events()]


def test_a_payload_with_line_breaks_is_one_line_of_ndjson(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, [make_event(1)])
    payload = '{\r\n"a"\r\n:"b\\n"\t\r\n}\r\n'
    with connect(settings) as client:
        client.command(
            f"INSERT INTO {settings.clickhouse_database}.event_log SELECT * REPLACE (%(payload)s AS payload,"
            f" generateUUIDv4() AS id, occurred_at + 1 AS occurred_at) FROM {settings.clickhouse_database}.event_log",
            parameters={"payload": payload},
            use_database=False,
        )
    assert export_events(settings, ALL, tmp_path / "all.ndjson", output_format=OutputFormat(format="ndjson")).rows == 2
    lines = (tmp_path / "all.ndjson").read_text("utf-8").split("\n")
    assert [json.loads(line)["payload"] for line in lines[:2]] == [{"number": 1, "note": "event 1"}, {"a": "b\n"}]
    assert lines[2:] == [""]


def test_parquet_has_the_same_cells_with_types(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, awkward_events())
    export_events(settings, ALL, tmp_path / "all.csv")
    for name in ("all.parquet", "again.parquet"):
        assert export_events(settings, ALL, tmp_path / name, output_format=OutputFormat(format="parquet")).rows == len(
            awkward_events()
        )
    assert (tmp_path / "all.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    with duckdb.connect() as connection:
        kinds: dict[str, Any] = {
            name: kind
            for name, kind, *_ in connection.execute(f"DESCRIBE FROM '{tmp_path / 'all.parquet'}'").fetchall()
        }
        rows = connection.execute(
            f"SELECT * REPLACE (epoch_ns(occurred_at) AS occurred_at) FROM '{tmp_path / 'all.parquet'}'"
        ).fetchall()
    assert list(kinds) == list(FIELDS)
    assert (kinds["version"], kinds["success"], kinds["payload"]) == ("USMALLINT", "BOOLEAN", "VARCHAR")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        expected = [
            tuple(
                {"occurred_at": event.occurred_at, "version": event.version, "success": event.success}.get(name, cell)
                for name, cell in row.items()
            )
            for row, event in zip(csv.DictReader(file), awkward_events(), strict=True)
        ]
    assert rows == expected


def test_parquet_that_breaks_off_is_not_written(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, [make_event(number) for number in range(500)])

    def half(body: bytes, send: Send) -> bool:
        send(body[: len(body) // 2])
        return True

    with relay(settings.clickhouse_url, half) as url, pytest.raises(ExportError, match="broke off inside the file"):
        export_events(
            ClickHouseSettings(clickhouse_url=url, clickhouse_database=settings.clickhouse_database),
            ALL,
            tmp_path / "all.parquet",
            output_format=OutputFormat(format="parquet"),
        )
    assert list(tmp_path.iterdir()) == []
    assert (
        export_events(settings, ALL, tmp_path / "all.parquet", output_format=OutputFormat(format="parquet")).rows == 500
    )


def test_no_cell_of_the_spreadsheet_profile_is_a_formula_wherever_it_is_divided(
    settings: ClickHouseSettings, tmp_path: Path
) -> None:
    """Programs of many countries divide at semicolons, some at tabs, and ignore the quotes."""
    nasty = ";=1+1;+1;-1;@x\t=2\r\n=3"
    store(
        settings,
        [
            *awkward_events(),
            make_event(
                5000,
                occurred_at=START + timedelta(days=2),
                actor={"id": nasty, "type": nasty, "name": nasty, nasty: nasty},
                payload={nasty: nasty},
                metadata={nasty: nasty},
            ),
        ],
    )
    export_events(settings, ALL, tmp_path / "raw.csv")
    export_events(settings, ALL, tmp_path / "sheet.csv", output_format=OutputFormat(profile="spreadsheet"))
    text = (tmp_path / "sheet.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbfaction,")
    assert not {b";", b"\t"} & {text[position : position + 1] for position in range(len(text))}
    with (tmp_path / "sheet.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert not [cell for row in rows for cell in row.values() if cell.lstrip("\"' ")[:1] in set("=+-@\t\r\n") - {""}]
    # It loses nothing: JSON's escapes mean the same.
    with (tmp_path / "raw.csv").open(newline="", encoding="utf-8") as file:
        raw = [event_json_from_row(row) for row in csv.DictReader(file)]
    assert [json.loads(event_json_from_row(row)) for row in rows] == [json.loads(line) for line in raw]


def test_contradicting_output_formats_are_refused(settings: ClickHouseSettings, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="spreadsheet is for csv"):
        OutputFormat(format="ndjson", profile="spreadsheet")
    with pytest.raises(ExportError, match="parquet is compressed already"):
        export_events(settings, ALL, tmp_path / "all.parquet.gz", output_format=OutputFormat(format="parquet"))
