"""Converts a row of an export back into its event."""

import json
from collections.abc import Mapping

from auditstream_schemas.errors import ExportError
from auditstream_schemas.event import FIELDS
from auditstream_schemas.faults import Fault
from auditstream_schemas.json_text import compact_object

_NESTED = frozenset({"actor", "target", "payload", "metadata", "scope", "request"})
_OPTIONAL = frozenset({"scope", "request"})
_LITERALS = frozenset({"true", "false"})


def event_json_from_row(row: Mapping[str, str]) -> str:
    """Convert a row of an export into the JSON text of its event, one line that ``auditstream emit`` accepts.

    Nested cells are JSON already. Only the white space between their tokens is removed, so a payload keeps every
    digit and every escape. Read rows with ``csv.DictReader(file)``, the file opened with ``newline=""``, after
    ``csv.field_size_limit(1_000_000)``: the module's own limit is 131,072 characters.

    Raises:
        ExportError: A column is missing, or a cell is malformed.
    """
    members = []
    for name in FIELDS:
        cell = row.get(name)
        if cell is None:
            raise ExportError(f"the row has no column {name!r}: an export has {', '.join(FIELDS)}")
        if cell or name not in _OPTIONAL:
            members.append(f'"{name}":{_json(name, cell)}')
    return "{" + ",".join(members) + "}"


def _json(name: str, cell: str) -> str:
    if name in _NESTED:
        try:
            return compact_object(cell)
        except Fault as fault:
            raise ExportError(f"the cell of {name!r} was {fault.was}, expected {fault.expected}") from fault
    if name == "version":
        if not (cell.isascii() and cell.isdigit()):
            raise ExportError(f"the cell of 'version' is not a whole number: {cell[:80]!r}")
        return str(int(cell))
    if name == "success":
        if cell not in _LITERALS:
            raise ExportError(f"the cell of 'success' is neither true nor false: {cell[:80]!r}")
        return cell
    return json.dumps(cell, ensure_ascii=False)
