import csv
import io
import json

import pytest
from hypothesis import given

from auditstream_export import event_json_from_row
from auditstream_schemas.errors import ExportError
from auditstream_schemas.event import FIELDS, AuditEvent
from tests.support.events import events, make_event


def _row(event: AuditEvent) -> dict[str, str]:
    """The row of an event, made without ClickHouse."""
    fields = json.loads(event.to_json())
    cells = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in fields.items()}
    cells |= {"payload": event.payload, "version": str(event.version), "success": json.dumps(event.success)}
    return {name: cells.get(name, "") for name in FIELDS}


@given(event=events())
def test_a_row_becomes_its_event(event: AuditEvent) -> None:
    text = event_json_from_row(_row(event))
    assert AuditEvent.from_json(text) == event
    assert event.payload in text
    assert "\n" not in text
    assert "\r" not in text


def test_absent_scope_and_request_are_left_out() -> None:
    text = event_json_from_row(_row(make_event(1, scope=None, request=None)))
    assert list(json.loads(text)) == [name for name in FIELDS if name not in {"scope", "request"}]


def test_a_row_of_the_csv_module_becomes_its_event() -> None:
    event = make_event(1, payload={"text": 'a "b",\r\nc'})
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, FIELDS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerow(_row(event))
    file.seek(0)
    [row] = csv.DictReader(file)
    assert AuditEvent.from_json(event_json_from_row(row)) == event


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("actor", "", "'actor' was empty, expected a JSON object"),
        ("payload", "[]", "'payload' was a JSON array, expected a JSON object"),
        ("payload", '{},"success":false,"x":{}', "'payload' was invalid JSON"),
        ("metadata", "null", "'metadata' was null, expected a JSON object"),
        ("scope", "org-1", "'scope' was invalid JSON"),
        ("version", "1.0", "'version' is not a whole number"),
        ("version", "", "'version' is not a whole number"),
        ("version", "²", "'version' is not a whole number"),
        ("success", "1", "'success' is neither true nor false"),
    ],
)
def test_a_malformed_cell_is_refused(column: str, cell: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        event_json_from_row(_row(make_event(1)) | {column: cell})


def test_a_missing_column_is_named() -> None:
    row = _row(make_event(1))
    del row["metadata"]
    with pytest.raises(ExportError, match="no column 'metadata'"):
        event_json_from_row(row)
