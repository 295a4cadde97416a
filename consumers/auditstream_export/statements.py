"""The SQL of an export. ClickHouse makes every byte of the CSV; Python only passes it on.

All of it reads the view ``events``. Values are server-side parameters; so is the database's name.
"""

from auditstream_export.request import ExportFilter

_VIEW = "{database:Identifier}.events"
_RANGE = (
    "occurred_at >= fromUnixTimestamp64Nano({start:Int64}, 'UTC')"
    " AND occurred_at < fromUnixTimestamp64Nano({end:Int64}, 'UTC')"
)
_BOUND = "ingested_at <= fromUnixTimestamp64Milli({ingested_up_to:Int64}, 'UTC')"

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


def hours(wanted: ExportFilter) -> str:
    """Per hour that has any: its first nanosecond, its events, and their last ``ingested_at`` in milliseconds."""
    return (
        "WITH toUnixTimestamp64Nano(occurred_at) AS time"
        " SELECT time - positiveModulo(time, 3600000000000) AS hour, count(),"
        " max(toUnixTimestamp64Milli(ingested_at))"
        f" FROM {_VIEW} WHERE {_RANGE} AND {wanted.where()[0]} GROUP BY hour ORDER BY hour"
    )


def count(wanted: ExportFilter) -> str:
    """How many events a slice holds."""
    return f"SELECT count() FROM {_VIEW} WHERE {_slice(wanted)}"


def rows(wanted: ExportFilter) -> str:
    """The CSV records of a slice, without a header, by time and then by the text of the id.

    A UUID column sorts by its second half; the number of a UUID sorts as its text does.
    """
    return (
        f"SELECT {', '.join(_CELLS.values())} FROM {_VIEW} WHERE {_slice(wanted)} ORDER BY occurred_at, UUIDToNum(id)"
    )


def _slice(wanted: ExportFilter) -> str:
    return f"{_RANGE} AND {_BOUND} AND {wanted.where()[0]}"


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
HEADER = (",".join(COLUMNS) + "\r\n").encode()
