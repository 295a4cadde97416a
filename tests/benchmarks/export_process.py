"""Candidates that write events to CSV, each in a separate process.

``python -m tests.benchmarks.export_process ours|straight|naive FILE``. ``straight`` reads the export's SELECT as one
query, and discards the rows. ``naive`` is a simple script: one query per day with ``client.query``, and Python's csv
module.
"""

import csv
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import clickhouse_connect
from urllib3.response import BaseHTTPResponse

from auditstream_export import ExportFilter, ExportRequest, OutputFormat, export_events
from auditstream_export.query.ledger_extract import read_ledger
from auditstream_export.query.snapshot import connect
from auditstream_export.query.statements import SETTINGS, ExportStatements
from auditstream_schemas.event import FIELDS
from auditstream_schemas.settings import ClickHouseSettings, load
from auditstream_schemas.timestamp import from_datetime
from tests.benchmarks.child import peak_bytes, say

_PIECE = 1024 * 1024
_DAYS = 400


def _ours(settings: ClickHouseSettings, request: ExportRequest, path: Path) -> int:
    return export_events(settings, request, path, overwrite=True).rows


def _straight(settings: ClickHouseSettings, request: ExportRequest, _path: Path) -> int:
    client = connect(settings)
    database = {"database": settings.clickhouse_database}
    ledger = read_ledger(lambda sql, more: client.query(sql, parameters={**database, **more}).result_rows, None)
    statements = ExportStatements(filter=ExportFilter(), watermark=ledger.watermark, output_format=OutputFormat())
    response = cast(
        "BaseHTTPResponse",
        client.raw_stream(
            statements.rows(),
            parameters={**database, **statements.parameters(), "start": request.start, "end": request.end},
            settings=SETTINGS,
            fmt="CSVWithNames",
            use_database=False,
        ),
    )
    size = 0
    while piece := response.read(_PIECE):
        size += len(piece)
    return size


def _naive(settings: ClickHouseSettings, _request: ExportRequest, path: Path) -> int:
    client = clickhouse_connect.get_client(dsn=settings.clickhouse_url, autogenerate_session_id=False)
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for day in range(_DAYS):
            begin = datetime.now(UTC).date() - timedelta(days=_DAYS - 2 - day)
            result = client.query(
                f"SELECT {', '.join(FIELDS)} FROM {settings.clickhouse_database}.events "
                "WHERE toDate(occurred_at) = {day:Date} ORDER BY occurred_at, id",
                parameters={"day": begin},
            )
            for row in result.result_rows:
                writer.writerow([_cell(value) for value in row])
            rows += len(result.result_rows)
    return rows


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value.isoformat() if isinstance(value, datetime) else value


def main() -> None:
    run: Callable[[ClickHouseSettings, ExportRequest, Path], int] = {
        "ours": _ours,
        "straight": _straight,
        "naive": _naive,
    }[sys.argv[1]]
    settings = load(ClickHouseSettings)
    now = datetime.now(UTC)
    request = ExportRequest(
        start=from_datetime(now - timedelta(days=_DAYS)), end=from_datetime(now + timedelta(days=2))
    )
    say("reading")
    rows = run(settings, request, Path(sys.argv[2]))
    say("end", peak=peak_bytes(), rows=rows)


if __name__ == "__main__":
    main()
