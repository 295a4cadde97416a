"""The SQL of the page. Every statement is made for a viewer, and returns only rows that the viewer may see.

`EventStatements` is the only place where the page's SQL about events is made. The conditions of every statement begin
with the viewer's scopes. The values of a filter, a cursor or a link only add further conditions. Values are
server-side parameters; so is the database's name, which `EventStore` adds.

A page is read in two steps. First the keys are read from the table, window by window, where skip indices and the
primary key prune. Then the rows of these few keys are read. Neither step uses ``FINAL``, which reads the whole key of
every granule it touches, and more granules than the skip indices leave. Copies of an event that are not merged yet
have the same primary key and the same content, so one row of each key is exactly what the view ``events`` shows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.timestamp import NANOSECONDS
from auditstream_storage import TIME_RANGE, id_key

POLICY_SETTING = "SQL_auditstream_scopes"
"""The setting that row policies read."""

COLUMNS = (
    "toUnixTimestamp64Nano(occurred_at)", "toString(id)", "action", "success",
    "actor.id", "actor.type", "actor.name", "target.id", "target.type", "target.name",
    "scope.id", "scope.type", "scope.name", "request.id",
)  # fmt: skip
"""The columns of an event in a list, in this order."""

WHOLE = (
    *COLUMNS,
    "actor.attributes", "target.attributes", "scope.attributes", "request.attributes", "payload", "metadata", "version",
    "toUnixTimestamp64Milli(ingested_at)", "kafka_topic", "toString(kafka_topic_id)", "kafka_partition", "kafka_offset",
)  # fmt: skip
"""All columns of an event, in this order."""

_TABLE = "{database:Identifier}.event_log"
_KEY = "toUnixTimestamp64Nano(occurred_at), toString(id), scope.id"
_IDENTITY = "scope.id, occurred_at, id, content_hash"
"""The table's primary key: rows with the same key are copies of one event."""
_BOUND = "ingested_at <= fromUnixTimestamp64Milli({bound:Int64}, 'UTC')"

_BY_ID = "min_table_rows_to_use_projection_index = 0, max_projection_rows_to_use_projection_index = 1000000000000"
"""Settings with which every look-up by id uses the index by id, however small the table is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStatement:
    """One query: its text, and the values of its parameters."""

    sql: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """The position of an event in the order of all events: by time, then by the text of its id.

    Attributes:
        occurred_at: Nanoseconds since the epoch.
        id: Its id, 36 lower-case characters.
        scope: Id of its scope, empty if it has none; not part of the order.
    """

    occurred_at: int
    id: str
    scope: str = field(default="", compare=False)


class ShownOffset(NamedTuple):
    """The last offset of a partition that a live tail has shown."""

    topic_id: str
    partition: int
    offset: int


class EventStatements:
    """The statements for one viewer. The time range of a filter is ignored; each method takes its own range."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer

    def keys(
        self,
        event_filter: EventFilter,
        window: TimeSpan,
        *,
        bound: int,
        limit: int,
        after: Key | None,
        newest_first: bool,
    ) -> EventStatement:
        """The keys of a window in order: nanoseconds, id, scope id. Copies that are not merged yet are returned, too.

        ``bound`` is the latest ``ingested_at``, milliseconds since the epoch. With ``after``, only keys after this one
        are returned, in the order of ``newest_first``: by time descending, else ascending.
        """
        conditions, parameters = self._conditions(event_filter)
        direction, sign = ("DESC", "<") if newest_first else ("", ">")
        if after is not None:
            conditions.append(
                f"(occurred_at, UUIDToNum(id)) {sign} "
                "(fromUnixTimestamp64Nano({after_time:Int64}, 'UTC'), UUIDToNum({after_id:UUID}))"
            )
            parameters |= {"after_time": after.occurred_at, "after_id": after.id}
        return EventStatement(
            sql=f"SELECT {_KEY} FROM {_TABLE} WHERE {_all([*conditions, TIME_RANGE, _BOUND])}"
            f" ORDER BY occurred_at {direction}, UUIDToNum(id) {direction} LIMIT {{limit:UInt32}}",
            parameters={**parameters, **_times(window), "bound": bound, "limit": limit},
        )

    def event(self, id: str) -> EventStatement:
        """The event with this id, at any time, with the columns `WHOLE`."""
        conditions, parameters = self._visible()
        conditions += [f"id_key = {id_key('{id:UUID}')}", "id = {id:UUID}"]
        return EventStatement(
            sql=f"SELECT {', '.join(WHOLE)} FROM {_TABLE} WHERE {_all(conditions)}"
            f" ORDER BY occurred_at DESC, content_hash LIMIT 1 BY {_IDENTITY} SETTINGS {_BY_ID}",
            parameters={**parameters, "id": id},
        )

    def rows(self, keys: Sequence[Key], *, whole: bool) -> EventStatement:
        """The events of these keys, newest first, each once, with the columns `COLUMNS` or `WHOLE`.

        Conditions on each column of the primary key prune to the granules of the keys; a condition on their tuple does
        not if it is a parameter. They match a few other rows, too, which the caller must drop.
        """
        conditions, parameters = self._visible()
        conditions += [
            "scope.id IN {key_scopes:Array(String)}",
            "occurred_at IN {key_times:Array(DateTime64(9, 'UTC'))}",
            "id IN {key_ids:Array(UUID)}",
        ]
        return EventStatement(
            sql=f"SELECT {', '.join(WHOLE if whole else COLUMNS)} FROM {_TABLE} WHERE {_all(conditions)}"
            f" ORDER BY occurred_at DESC, UUIDToNum(id) DESC, content_hash LIMIT 1 BY {_IDENTITY}",
            parameters={
                **parameters,
                "key_scopes": sorted({key.scope for key in keys}),
                "key_times": [_decimal(key.occurred_at) for key in keys],
                "key_ids": [key.id for key in keys],
            },
        )

    def estimate(self, event_filter: EventFilter, span: TimeSpan) -> EventStatement:
        """The estimated number of rows to read for the events of a range: the fourth column of the result."""
        conditions, parameters = self._conditions(event_filter)
        return EventStatement(
            sql=f"EXPLAIN ESTIMATE SELECT success FROM {_TABLE} WHERE {_all([*conditions, TIME_RANGE])}",
            parameters={**parameters, **_times(span)},
        )

    def buckets(
        self, event_filter: EventFilter, span: TimeSpan, *, origin: int, width: int, exact: bool
    ) -> EventStatement:
        """The histogram. Each row is a bucket with events: its number, its events, and how many of them failed.

        Bucket 0 starts at ``origin``, at or before the start of the range; all in nanoseconds. With ``exact``, the
        copies of an event that are not merged yet are counted once; use it for ranges with few rows to read. Otherwise
        each copy is counted.
        """
        conditions, parameters = self._conditions(event_filter)
        events = f"SELECT occurred_at, success FROM {_TABLE} WHERE {_all([*conditions, TIME_RANGE])}"
        return EventStatement(
            sql="SELECT intDiv(toUnixTimestamp64Nano(occurred_at) - {origin:Int64}, {width:Int64}) AS bucket,"
            " count(), countIf(NOT success)"
            f" FROM ({events}{f' LIMIT 1 BY {_IDENTITY}' if exact else ''}) GROUP BY bucket ORDER BY bucket",
            parameters={**parameters, **_times(span), "origin": origin, "width": width},
        )

    def arrived(
        self, event_filter: EventFilter, since: Sequence[ShownOffset], *, not_before: int, limit: int
    ) -> EventStatement:
        """Events ingested after these offsets, in the order of arrival: topic id, partition, offset, then the key.

        Of partitions that are not in ``since``, all events are returned. ``not_before`` is the earliest
        ``ingested_at``, milliseconds since the epoch.
        """
        conditions, parameters = self._conditions(event_filter)
        conditions.append("ingested_at >= fromUnixTimestamp64Milli({not_before:Int64}, 'UTC')")
        for number, (topic_id, partition, offset) in enumerate(since):
            conditions.append(
                f"NOT (kafka_topic_id = {{topic_{number}:UUID}} AND kafka_partition = {{partition_{number}:Int32}}"
                f" AND kafka_offset <= {{offset_{number}:Int64}})"
            )
            parameters |= {f"topic_{number}": topic_id, f"partition_{number}": partition, f"offset_{number}": offset}
        return EventStatement(
            sql=f"SELECT toString(kafka_topic_id), kafka_partition, kafka_offset, {_KEY} FROM {_TABLE}"
            f" WHERE {_all(conditions)} ORDER BY kafka_topic_id, kafka_partition, kafka_offset LIMIT {{limit:UInt32}}",
            parameters={**parameters, "not_before": not_before, "limit": limit},
        )

    def actions(self, span: TimeSpan) -> EventStatement:
        """The actions of a time range, and the number of events of each; most frequent first."""
        conditions, parameters = self._visible("scope_id")
        return EventStatement(
            sql="SELECT action, count() AS events FROM {database:Identifier}.events"
            f" WHERE {_all([*conditions, TIME_RANGE])} GROUP BY action ORDER BY events DESC, action LIMIT 1000",
            parameters={**parameters, **_times(span)},
        )

    def _visible(self, scope_column: str = "scope.id") -> tuple[list[str], dict[str, object]]:
        """The condition with which every statement begins: the viewer's scopes."""
        if self._viewer.sees_all:
            return ["true"], {}
        return [f"{scope_column} IN {{viewer_scopes:Array(String)}}"], {"viewer_scopes": list(self._viewer.scopes)}

    def _conditions(self, event_filter: EventFilter) -> tuple[list[str], dict[str, object]]:
        visible, viewer_parameters = self._visible()
        conditions, parameters = event_filter.conditions(scope_column="scope.id")
        return [*visible, *conditions], viewer_parameters | parameters


def _all(conditions: Iterable[str]) -> str:
    return " AND ".join(conditions)


def _times(span: TimeSpan) -> dict[str, object]:
    """The parameters of `TIME_RANGE`."""
    return {"start": span.start, "end": span.end}


def _decimal(nanoseconds: int) -> str:
    """A time in the form that ClickHouse reads: seconds and nine decimals."""
    seconds, fraction = divmod(nanoseconds, NANOSECONDS)
    return f"{seconds}.{fraction:09d}"
