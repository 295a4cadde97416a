"""The SQL of an export. ClickHouse formats the rows; Python only passes their bytes on.

Every statement reads the view ``events``. Values and the name of the database are server-side parameters.
"""

from dataclasses import dataclass

from auditstream_export.formats.output_format import OutputFormat
from auditstream_export.query.request import ExportFilter
from auditstream_export.query.watermark import Watermark
from auditstream_storage import TIME_RANGE

_VIEW = "{database:Identifier}.events"
_COPIES = "{database:Identifier}.copies"
_COORDINATES = ("kafka_topic_id", "kafka_partition", "kafka_offset")

SETTINGS: dict[str, object] = {
    "format_csv_delimiter": ",",
    "output_format_csv_crlf_end_of_line": 1,
    "output_format_json_escape_forward_slashes": 0,
    "output_format_json_map_as_array_of_tuples": 0,
    "date_time_64_output_format_cut_trailing_zeros_align_to_groups_of_thousands": 0,
    # Reading with FINAL keeps a block of every part in memory, with the payloads: small blocks take half the
    # memory and no more time. The sort spills to disk instead of growing.
    "max_block_size": 8192,
    "max_bytes_before_external_sort": 256 * 1024 * 1024,
    "prefer_external_sort_block_bytes": 1024 * 1024,
    # A limit in the user's profile must fail the export, never shorten it.
    "read_overflow_mode": "throw",
    "result_overflow_mode": "throw",
    "sort_overflow_mode": "throw",
    "timeout_overflow_mode": "throw",
    "limit": 0,
    "offset": 0,
    # When an export is interrupted, ClickHouse ends its query.
    "cancel_http_readonly_queries_on_client_close": 1,
}
"""ClickHouse's settings for the statement `ExportStatements.rows`."""

COUNTING = {name: value for name, value in SETTINGS.items() if "csv" not in name and "json" not in name}
"""ClickHouse's settings for all other statements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportStatements:
    """The statements of one export."""

    filter: ExportFilter
    watermark: Watermark
    output_format: OutputFormat

    def parameters(self) -> dict[str, object]:
        """The parameters of all statements, except ``start`` and ``end`` (nanoseconds since the epoch)."""
        return {**self.filter.where()[1], **self.watermark.parameters()}

    def hours(self) -> str:
        """The hours with events: the first nanosecond and the number of events of each."""
        return (
            "WITH toUnixTimestamp64Nano(occurred_at) AS time"
            " SELECT time - positiveModulo(time, 3600000000000) AS hour, count()"
            f" FROM {_VIEW} WHERE {self._where()} GROUP BY hour ORDER BY hour"
        )

    def rows(self) -> str:
        """The rows of a slice, without a header, ordered by time and then by the text of the id.

        ClickHouse sorts a UUID column by its second half. The number of a UUID has the order of its text. If two
        events with one id were stored at the same moment, the coordinates decide.
        """
        order = ("occurred_at", "UUIDToNum(id)", *_COORDINATES)
        if self.output_format.format != "parquet":
            cells = _cells(self.output_format)
            return f"SELECT {cells} FROM {_VIEW} WHERE {self._where()} ORDER BY {', '.join(order)}"
        # Parquet columns have names. An alias of the same name would shadow the column in WHERE and ORDER BY.
        inner = [f"{cell} AS cell_{number}" for number, cell in enumerate(_TYPED_CELLS.values())]
        inner += [f"{key} AS key_{number}" for number, key in enumerate(order)]
        named = ", ".join(f"cell_{number} AS {name}" for number, name in enumerate(_TYPED_CELLS))
        keys = ", ".join(f"key_{number}" for number in range(len(order)))
        return f"SELECT {named} FROM (SELECT {', '.join(inner)} FROM {_VIEW} WHERE {self._where()}) ORDER BY {keys}"

    def _where(self) -> str:
        return f"{TIME_RANGE} AND {self._is_below()} AND {self.filter.where()[0]}"

    def _is_below(self) -> str:
        """The condition that the coordinates of an event, or of a copy of it, are at or below the watermark."""
        is_event_below = self.watermark.at_or_below(*_COORDINATES)
        is_copy_below = self.watermark.at_or_below("topic_id", "partition", "offset")
        # The table must have the event's own coordinates, too: other content under its id is another event.
        return (
            f"({is_event_below} OR ({', '.join(_COORDINATES)}) IN (SELECT topic_id, partition, offset FROM {_COPIES}"
            f" WHERE id IN (SELECT id FROM {_COPIES} WHERE {is_copy_below})))"
        )


def header(output_format: OutputFormat) -> bytes:
    """The bytes before the first row of a file."""
    if output_format.format != "csv":
        return b""
    # Without the byte order mark, spreadsheet programs take UTF-8 for the encoding of their country.
    mark = "\ufeff" if output_format.profile == "spreadsheet" else ""
    return (mark + ",".join(COLUMNS) + "\r\n").encode()


def _object(column: str, *, members: str) -> str:
    """The SQL of a JSON object: id, the given members, then the attributes sorted by key."""
    attributes = f"toJSONString(mapSort({column}.attributes))"
    return (
        f"concat('{{\"id\":', toJSONString({column}.id){members},"
        f" if(empty({column}.attributes), '}}', concat(',', substring({attributes}, 2))))"
    )


def _entity(column: str) -> str:
    name = f"concat(',\"name\":', toJSONString(assumeNotNull({column}.name)))"
    return _object(
        column, members=f", ',\"type\":', toJSONString({column}.type), if(isNull({column}.name), '', {name})"
    )


_TIME = "trim(TRAILING '.' FROM trim(TRAILING '0' FROM toString(occurred_at)))"

# No cell has an alias: an alias would shadow the column in WHERE and ORDER BY.
_CELLS = {
    "action": "action",
    "actor": _entity("actor"),
    "target": _entity("target"),
    "payload": "payload",
    "occurred_at": f"concat(replaceOne({_TIME}, ' ', 'T'), 'Z')",
    "metadata": "toJSONString(mapSort(metadata))",
    "id": "toString(id)",
    "version": "version",
    "scope": f"if(scope.id = '', '', {_entity('scope')})",
    "success": "if(success, 'true', 'false')",
    "request": f"if(request.id = '', '', {_object('request', members='')})",
}
COLUMNS = tuple(_CELLS)
"""The columns of an export, in order: the public fields of an event."""

_TEXT_CELLS = frozenset({"action", "occurred_at", "id", "version", "success"})
_TYPED_CELLS = {**_CELLS, "occurred_at": "occurred_at", "version": "version", "success": "success"}

# Line breaks occur only between the tokens of JSON text: inside a string they are escaped.
_ONE_LINE_PAYLOAD = "translate(payload, '\\r\\n', '  ')"


def _cells(output_format: OutputFormat) -> str:
    if output_format.format == "ndjson":
        return _line()
    if output_format.profile == "raw":
        return ", ".join(_CELLS.values())
    return ", ".join(cell if name in _TEXT_CELLS else _harmless(cell) for name, cell in _CELLS.items())


def _harmless(cell: str) -> str:
    """The SQL of a JSON cell that stays one cell, whether a program splits at commas, semicolons or tabs.

    The cell begins with a brace, so it is no formula. But spreadsheet programs of many countries split at semicolons,
    and one of the pieces could begin with ``=``. In JSON text a semicolon occurs only in strings, where its escape
    means the same; tabs and line breaks occur only between tokens.
    """
    return f"replaceAll(translate({cell}, '\\t\\r\\n', '   '), ';', '\\\\u003b')"


def _line() -> str:
    """The SQL of an event as one line of JSON, in the form that the SDK writes."""
    values = {
        "action": "toJSONString(action)",
        "payload": _ONE_LINE_PAYLOAD,
        "occurred_at": f"concat('\"', {_CELLS['occurred_at']}, '\"')",
        "id": "concat('\"', toString(id), '\"')",
        "version": "toString(version)",
    }
    parts = []
    for number, (name, cell) in enumerate(_CELLS.items()):
        key = f"'{',' if number else '{'}\"{name}\":'"
        if name in {"scope", "request"}:
            object_ = _entity("scope") if name == "scope" else _object("request", members="")
            parts.append(f"if({name}.id = '', '', concat({key}, {object_}))")
        else:
            parts += [key, values.get(name, cell)]
    return f"concat({', '.join(parts)}, '}}')"
