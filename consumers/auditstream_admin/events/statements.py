"""The SQL of the page. Every statement is made for a viewer, and holds nothing that they may not see.

`EventStatements` is the one place where SQL about events is made. Its conditions begin with the viewer's scopes, and
there is no way around them: what a filter, a cursor or a link names is one more condition, never another one. Values
travel as server-side parameters; so does the database's name.

Rows are found in two steps. The keys of a page are looked for in the table itself, window by window, where skip
indices and the primary key prune. Then the rows of these few keys are read. Neither uses ``FINAL``, which reads the
whole key of every granule it touches, and more granules than the skip indices leave: copies of an event that are not
merged yet have the same primary key and the same content, so one of each key is just what the view ``events`` shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.time_range import TimeSpan
from auditstream_export.query.request import glob_to_like, has_word, words
from auditstream_schemas.timestamp import NANOSECONDS
from auditstream_storage.id_key import id_key

POLICY_SETTING = "SQL_auditstream_scopes"
"""The setting that row policies read."""


_TABLE = "{database:Identifier}.event_log"
_VIEW = "{database:Identifier}.events"
_TIME = (
    "occurred_at >= fromUnixTimestamp64Nano({start:Int64}, 'UTC')"
    " AND occurred_at < fromUnixTimestamp64Nano({end:Int64}, 'UTC')"
)
_IDENTITY = "scope.id, occurred_at, id, content_hash"
"""The table's primary key: rows that have the same are copies of one event."""
_BOUND = "ingested_at <= fromUnixTimestamp64Milli({bound:Int64}, 'UTC')"

# However small the table or wide the look-up: the index by id finds the granules.
_BY_ID: Mapping[str, object] = {
    "min_table_rows_to_use_projection_index": 0,
    "max_projection_rows_to_use_projection_index": 1_000_000_000_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStatement:
    """One query.

    Attributes:
        sql: Its text; every value in it is a parameter.
        parameters: The values.
        settings: What ClickHouse is told besides.
    """

    sql: str
    parameters: Mapping[str, object]
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Key:
    """Where an event stands in the order of all: by time, then by the text of its id.

    Attributes:
        occurred_at: Nanoseconds since the epoch.
        id: Its id, 36 lower-case characters.
        scope: Id of its scope, empty if it has none; not part of the order.
    """

    occurred_at: int
    id: str
    scope: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets:
    """How far a partition of a topic has been seen.

    Attributes:
        topic_id: The topic's id.
        partition: The partition.
        offset: The last offset that was seen.
    """

    topic_id: str
    partition: int
    offset: int


class EventStatements:
    """The statements for one viewer."""

    def __init__(self, viewer: Viewer, *, database: str) -> None:
        self._viewer = viewer
        self._database = database

    def keys(
        self, wanted: EventFilter, window: TimeSpan, *, bound: int, limit: int, after: Key | None, newest_first: bool
    ) -> EventStatement:
        """The keys of a window in order: nanoseconds, id, scope id. Copies that are not merged yet come repeatedly.

        Args:
            wanted: The filter; its own time is not looked at.
            window: The range of time.
            bound: Latest ``ingested_at``, milliseconds since the epoch.
            limit: How many at most.
            after: Only what comes after this one in the order asked for.
            newest_first: Or oldest first.
        """
        conditions, parameters = self._conditions(wanted, "scope.id")
        direction, sign = ("DESC", "<") if newest_first else ("", ">")
        if after is not None:
            conditions.append(
                f"(occurred_at, UUIDToNum(id)) {sign} "
                "(fromUnixTimestamp64Nano({after_time:Int64}, 'UTC'), UUIDToNum({after_id:UUID}))"
            )
            parameters |= {"after_time": after.occurred_at, "after_id": after.id}
        return self._statement(
            "SELECT toUnixTimestamp64Nano(occurred_at), toString(id), scope.id"
            f" FROM {_TABLE} WHERE {' AND '.join([*conditions, _TIME, _BOUND])}"
            f" ORDER BY occurred_at {direction}, UUIDToNum(id) {direction} LIMIT {{limit:UInt32}}",
            {**parameters, "start": window.start, "end": window.end, "bound": bound, "limit": limit},
        )

    def event(self, id: str) -> EventStatement:
        """The event with this id, whatever its time: `WHOLE`; through the index by the key of ids."""
        conditions, parameters = self._visible("scope.id")
        conditions += [f"id_key = {id_key('{id:UUID}')}", "id = {id:UUID}"]
        return self._statement(
            f"SELECT {', '.join(WHOLE)} FROM {_TABLE} WHERE {' AND '.join(conditions)}"
            f" ORDER BY occurred_at DESC, content_hash LIMIT 1 BY {_IDENTITY}",
            {**parameters, "id": id},
            _BY_ID,
        )

    def rows(self, keys: Sequence[Key], *, whole: bool) -> EventStatement:
        """The events of these keys, newest first, each once: `COLUMNS`, or `WHOLE` with all their fields.

        Conditions on each column of the primary key prune to the granules of the keys, as one on their tuple does not
        when it comes as a parameter. They let pass a little more than the keys; the caller looks.
        """
        conditions, parameters = self._visible("scope.id")
        conditions += [
            "scope.id IN {key_scopes:Array(String)}",
            "occurred_at IN {key_times:Array(DateTime64(9, 'UTC'))}",
            "id IN {key_ids:Array(UUID)}",
        ]
        return self._statement(
            f"SELECT {', '.join(WHOLE if whole else COLUMNS)} FROM {_TABLE} WHERE {' AND '.join(conditions)}"
            " ORDER BY occurred_at DESC, UUIDToNum(id) DESC, content_hash"
            f" LIMIT 1 BY {_IDENTITY}",
            {
                **parameters,
                "key_scopes": sorted({key.scope for key in keys}),
                "key_times": [_decimal(key.occurred_at) for key in keys],
                "key_ids": [key.id for key in keys],
            },
        )

    def estimate(self, wanted: EventFilter, span: TimeSpan) -> EventStatement:
        """About how many rows must be read for the events of a range: the fifth of these columns is the number."""
        conditions, parameters = self._conditions(wanted, "scope.id")
        return self._statement(
            f"EXPLAIN ESTIMATE SELECT success FROM {_TABLE} WHERE {' AND '.join([*conditions, _TIME])}",
            {**parameters, "start": span.start, "end": span.end},
        )

    def buckets(self, wanted: EventFilter, span: TimeSpan, *, origin: int, width: int, exact: bool) -> EventStatement:
        """The histogram: number of each bucket that has events, how many, how many of them failed.

        Args:
            wanted: The filter; its own time is not looked at.
            span: The range of time.
            origin: Where the bucket 0 begins, not after the range; nanoseconds since the epoch.
            width: Nanoseconds of a bucket.
            exact: Count copies that are not merged yet once: for ranges of which few rows must be read. Else they
                count as often as they are stored.
        """
        conditions, parameters = self._conditions(wanted, "scope.id")
        found = f"SELECT occurred_at, success FROM {_TABLE} WHERE {' AND '.join([*conditions, _TIME])}"
        return self._statement(
            "SELECT intDiv(toUnixTimestamp64Nano(occurred_at) - {origin:Int64}, {width:Int64}) AS bucket,"
            " count(), countIf(NOT success)"
            f" FROM ({found}{f' LIMIT 1 BY {_IDENTITY}' if exact else ''}) GROUP BY bucket ORDER BY bucket",
            {**parameters, "start": span.start, "end": span.end, "origin": origin, "width": width},
        )

    def arrived(self, wanted: EventFilter, since: Sequence[Offsets], *, not_before: int, limit: int) -> EventStatement:
        """What was ingested since, in the order of arrival: topic id, partition, offset, then the key.

        Args:
            wanted: The filter; its time is not looked at, for what arrives now may have happened before.
            since: How far each partition has been seen; of others, everything counts.
            not_before: Earliest ``ingested_at`` that is looked at, milliseconds since the epoch.
            limit: How many at most.
        """
        conditions, parameters = self._conditions(wanted, "scope.id")
        conditions.append("ingested_at >= fromUnixTimestamp64Milli({not_before:Int64}, 'UTC')")
        for number, one in enumerate(since):
            conditions.append(
                f"NOT (kafka_topic_id = {{topic_{number}:UUID}} AND kafka_partition = {{partition_{number}:Int32}}"
                f" AND kafka_offset <= {{offset_{number}:Int64}})"
            )
            parameters |= {
                f"topic_{number}": one.topic_id,
                f"partition_{number}": one.partition,
                f"offset_{number}": one.offset,
            }
        return self._statement(
            "SELECT toString(kafka_topic_id), kafka_partition, kafka_offset,"
            " toUnixTimestamp64Nano(occurred_at), toString(id), scope.id"
            f" FROM {_TABLE} WHERE {' AND '.join(conditions)}"
            " ORDER BY kafka_topic_id, kafka_partition, kafka_offset LIMIT {limit:UInt32}",
            {**parameters, "not_before": not_before, "limit": limit},
        )

    def actions(self, span: TimeSpan) -> EventStatement:
        """The actions of a range of time and how many events each has; most frequent first."""
        conditions, parameters = self._visible("scope_id")
        return self._statement(
            f"SELECT action, count() AS events FROM {_VIEW} WHERE {' AND '.join([*conditions, _TIME])}"
            " GROUP BY action ORDER BY events DESC, action LIMIT 1000",
            {**parameters, "start": span.start, "end": span.end},
        )

    def _visible(self, scope_column: str) -> tuple[list[str], dict[str, object]]:
        """What the viewer may see: the condition that every statement begins with."""
        if self._viewer.sees_all:
            return ["true"], {}
        return [f"{scope_column} IN {{viewer_scopes:Array(String)}}"], {"viewer_scopes": list(self._viewer.scopes)}

    def _conditions(self, wanted: EventFilter, scope_column: str) -> tuple[list[str], dict[str, object]]:
        conditions, parameters = self._visible(scope_column)
        if wanted.scope is not None:
            conditions.append(f"{scope_column} = {{scope:String}}")
            parameters["scope"] = wanted.scope
        if wanted.actions:
            names = [f"action_{number}" for number in range(len(wanted.actions))]
            conditions.append("(" + " OR ".join(f"action LIKE {{{name}:String}}" for name in names) + ")")
            parameters.update(zip(names, map(glob_to_like, wanted.actions), strict=True))
        for name in ("actor", "target", "request"):
            value = getattr(wanted, name)
            if value is not None:
                conditions.append(f"{name}.id = {{{name}:String}}")
                parameters[name] = value
        if wanted.success is not None:
            conditions.append("success = {success:Bool}")
            parameters["success"] = wanted.success
        for number, (key, value) in enumerate(wanted.metadata):
            conditions.append(f"metadata[{{meta_key_{number}:String}}] = {{meta_value_{number}:String}}")
            conditions.append(f"mapContainsKey(metadata, {{meta_key_{number}:String}})")
            parameters |= {f"meta_key_{number}": key, f"meta_value_{number}": value}
        if wanted.text is not None:
            for number, word in enumerate(words(wanted.text)):
                conditions.append(has_word(f"word_{number}", is_ascii=word.isascii()))
                parameters[f"word_{number}"] = word
        return conditions, parameters

    def _statement(
        self, sql: str, parameters: Mapping[str, object], settings: Mapping[str, object] | None = None
    ) -> EventStatement:
        return EventStatement(sql=sql, parameters={"database": self._database, **parameters}, settings=settings or {})


def _decimal(nanoseconds: int) -> str:
    """An instant as ClickHouse reads it: seconds and nine decimals."""
    seconds, fraction = divmod(nanoseconds, NANOSECONDS)
    return f"{seconds}.{fraction:09d}"


COLUMNS = (
    "toUnixTimestamp64Nano(occurred_at)",
    "toString(id)",
    "action",
    "success",
    "actor.id",
    "actor.type",
    "actor.name",
    "target.id",
    "target.type",
    "target.name",
    "scope.id",
    "scope.type",
    "scope.name",
    "request.id",
)
"""What `EventStatements.rows` reads of an event for a list, in this order."""

WHOLE = (
    *COLUMNS,
    "actor.attributes",
    "target.attributes",
    "scope.attributes",
    "request.attributes",
    "payload",
    "metadata",
    "version",
    "toUnixTimestamp64Milli(ingested_at)",
    "kafka_topic",
    "toString(kafka_topic_id)",
    "kafka_partition",
    "kafka_offset",
)
"""What it reads of all of an event, in this order."""
