"""The SQL of an export. ClickHouse makes every byte of the rows; Python only passes them on.

All of it reads the view ``events``. Values are server-side parameters; so is the database's name.
"""

from dataclasses import dataclass

from auditstream_export.formats.output_format import OutputFormat
from auditstream_export.query.request import ExportFilter
from auditstream_export.query.watermark import Watermark

_VIEW = "{database:Identifier}.events"
_COPIES = "{database:Identifier}.copies"
_RANGE = (
    "occurred_at >= fromUnixTimestamp64Nano({start:Int64}, 'UTC')"
    " AND occurred_at < fromUnixTimestamp64Nano({end:Int64}, 'UTC')"
)
_PLACE = ("kafka_topic_id", "kafka_partition", "kafka_offset")

SETTINGS: dict[str, object] = {
    "format_csv_delimiter": ",",
    "output_format_csv_crlf_end_of_line": 1,
    "output_format_json_escape_forward_slashes": 0,
    "output_format_json_map_as_array_of_tuples": 0,
    "date_time_64_output_format_cut_trailing_zeros_align_to_groups_of_thousands": 0,
    # Reading FINAL holds a block of every part at once, with the payloads: small blocks take half the
    # memory and no more time. The sort spills to disk instead of growing.
    "max_block_size": 8192,
    "max_bytes_before_external_sort": 256 * 1024 * 1024,
    "prefer_external_sort_block_bytes": 1024 * 1024,
    # A limit of the user's profile must fail the export, never shorten it.
    "read_overflow_mode": "throw",
    "result_overflow_mode": "throw",
    "sort_overflow_mode": "throw",
    "timeout_overflow_mode": "throw",
    "limit": 0,
    "offset": 0,
    # Interrupting an export ends its query.
    "cancel_http_readonly_queries_on_client_close": 1,
}
"""For the rows."""

COUNTING: dict[str, object] = {
    name: value for name, value in SETTINGS.items() if "csv" not in name and "json" not in name
}
"""For everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportStatements:
    """The statements of one export.

    Attributes:
        filter: Which events of the range.
        watermark: Up to which offsets.
        shape: What the rows look like.
    """

    filter: ExportFilter
    watermark: Watermark
    shape: OutputFormat

    def parameters(self) -> dict[str, object]:
        """Parameters of all of them but for start and end, nanoseconds since the epoch."""
        return {**self.filter.where()[1], **self.watermark.parameters()}

    def hours(self) -> str:
        """Per hour that has any: its first nanosecond and its events."""
        return (
            "WITH toUnixTimestamp64Nano(occurred_at) AS time"
            " SELECT time - positiveModulo(time, 3600000000000) AS hour, count()"
            f" FROM {_VIEW} WHERE {self._where()} GROUP BY hour ORDER BY hour"
        )

    def rows(self) -> str:
        """The rows of a slice, without a header, by time and then by the text of the id.

        A UUID column sorts by its second half; the number of a UUID sorts as its text does. The place decides
        between two events of other content that were stored under one id at the same moment.
        """
        order = ("occurred_at", "UUIDToNum(id)", *_PLACE)
        if self.shape.format != "parquet":
            cells = _cells(self.shape)
            return f"SELECT {cells} FROM {_VIEW} WHERE {self._where()} ORDER BY {', '.join(order)}"
        # Its columns have names, and a name that is an alias would shadow the column in WHERE and ORDER BY.
        inner = [f"{cell} AS cell_{number}" for number, cell in enumerate(_TYPED_CELLS.values())]
        inner += [f"{key} AS key_{number}" for number, key in enumerate(order)]
        named = ", ".join(f"cell_{number} AS {name}" for number, name in enumerate(_TYPED_CELLS))
        keys = ", ".join(f"key_{number}" for number in range(len(order)))
        return f"SELECT {named} FROM (SELECT {', '.join(inner)} FROM {_VIEW} WHERE {self._where()}) ORDER BY {keys}"

    def _where(self) -> str:
        return f"{_RANGE} AND {self._is_below()} AND {self.filter.where()[0]}"

    def _is_below(self) -> str:
        """Whether an event came from a place at or below the watermark, shown from there or not."""
        shown = self.watermark.at_or_below(*_PLACE)
        noted = self.watermark.at_or_below("topic_id", "partition", "offset")
        # A place of the event's own must be noted: another content under its id is another event.
        return (
            f"({shown} OR ({', '.join(_PLACE)}) IN (SELECT topic_id, partition, offset FROM {_COPIES}"
            f" WHERE id IN (SELECT id FROM {_COPIES} WHERE {noted})))"
        )


def output_format(shape: OutputFormat) -> str:
    """ClickHouse's name of the format that gives the rows."""
    return {"csv": "CSV", "ndjson": "TSVRaw", "parquet": "Parquet"}[shape.format]


def header(shape: OutputFormat) -> bytes:
    """What a file begins with, before its first row."""
    if shape.format != "csv":
        return b""
    # Without the mark, spreadsheet programs take UTF-8 for the encoding of their country.
    mark = "\ufeff" if shape.profile == "spreadsheet" else ""
    return (mark + ",".join(COLUMNS) + "\r\n").encode()


def _object(column: str, *, members: str) -> str:
    """A JSON object: the members that are given, then the attributes sorted by key."""
    attributes = f"toJSONString(mapSort({column}.attributes))"
    return (
        f"concat('{{\"id\":', toJSONString({column}.id){members},"
        f" if(empty({column}.attributes), '}}', concat(',', substring({attributes}, 2))))"
    )


def _entity(column: str) -> str:
    name = f"concat(',\"name\":', toJSONString(assumeNotNull({column}.name)))"
    return _object(
        column,
        members=f", ',\"type\":', toJSONString({column}.type), if(isNull({column}.name), '', {name})",
    )


_TIME = "trim(TRAILING '.' FROM trim(TRAILING '0' FROM toString(occurred_at)))"

# No column is named by an alias: an alias would shadow the column in WHERE and ORDER BY.
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

# Between tokens alone: inside a JSON string a line break is escaped.
_ONE_LINE_PAYLOAD = "translate(payload, '\\r\\n', '  ')"


def _cells(shape: OutputFormat) -> str:
    if shape.format == "ndjson":
        return _line()
    if shape.profile == "raw":
        return ", ".join(_CELLS.values())
    return ", ".join(cell if name in _TEXT_CELLS else _harmless(cell) for name, cell in _CELLS.items())


def _harmless(cell: str) -> str:
    """A JSON cell that stays one cell, whichever of comma, semicolon and tab a program divides at.

    It begins with a brace, so it is no formula itself. But a program that divides at semicolons, as many countries
    have it, would make cells of its pieces, and one of them may begin with ``=``. A semicolon can stand in JSON's
    strings alone, where its escape means the same; tabs and line breaks between tokens alone.
    """
    return f"replaceAll(translate({cell}, '\\t\\r\\n', '   '), ';', '\\\\u003b')"


def _line() -> str:
    """An event as one line of JSON, as the SDK writes it."""
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
