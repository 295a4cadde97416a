"""The SQL of the sink: every decision about a record is one statement over the whole batch.

The stage holds a batch as it was parsed. ClickHouse computes the materialized columns while it parses: ``uid`` and its
key, ``content_hash`` (of the event's own fields, in an order that does not depend on the writer) and ``fault`` (the
first fault of the event, or an empty text).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from auditstream_schemas.validation import ACTION_PATTERN
from auditstream_sink.framing import END
from auditstream_storage import RETENTION_MONTHS, LedgerLine, id_key

FUTURE_DAYS = 1
"""An event further in the future is refused: its emitter's clock is wrong."""

FAULTS = {
    "trailing": "bytes follow the record",
    "text": "a text holds NUL or is not UTF-8",
    "id": "id is not a UUID of 36 lowercase characters",
    "action": "action is not two or more lowercase words separated by dots",
    "actor": "actor.id or actor.type is empty",
    "target": "target.id or target.type is empty",
    "scope": "scope.id or scope.type is empty; an absent scope is null",
    "request": "request.id is empty; an absent request is null",
    "version": "version is not between 1 and 65535",
    "payload": "payload is not the JSON text of one object",
    "future": f"occurred_at is more than {FUTURE_DAYS} day ahead of the sink's clock",
    "expired": f"occurred_at is more than {RETENTION_MONTHS} months ago",
}
"""Each fault with its meaning, for the dead letter."""

REFUSED = ("invalid", "conflict", "expired")
"""Statuses of records that become dead letters."""

STAGE_SETTINGS = {
    # An older writer schema may lack a field; the column then gets its default.
    "input_format_avro_allow_missing_fields": 1,
    "input_format_null_as_default": 1,
    "async_insert": 0,
}

# Use the projection by id always, however small the table or large the batch: an id that is not stored reads nothing.
_BY_ID = "min_table_rows_to_use_projection_index = 0, max_projection_rows_to_use_projection_index = 1000000000000"

# String, not LowCardinality: dictionaries cost the parser a third of its time, and the insert makes its own.
_ENTITY = "Tuple(id String, type String, name Nullable(String), attributes Map(String, String))"
_REQUEST = "Tuple(id String, attributes Map(String, String))"
_ACTION = ACTION_PATTERN.replace("\\", "\\\\")
_UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def _entity_content(name: str) -> str:
    return f"{name}.id, {name}.type, {name}.name, mapSort({name}.attributes)"


# RowBinary writes the length of every text and map and a flag for every NULL, so only equal events have equal bytes.
# A hash of one string costs a third of a hash over all the columns.
_CONTENT_HASH = f"""sipHash64(formatRow('RowBinary',
    action, version, {_entity_content("actor")}, {_entity_content("target")}, payload,
    toUnixTimestamp64Nano(occurred_at), mapSort(metadata),
    isNull(scope), {_entity_content("assumeNotNull(scope)")}, success,
    isNull(request), assumeNotNull(request).id, mapSort(assumeNotNull(request).attributes)))"""


def _entity_texts(name: str) -> str:
    return f"{name}.id, {name}.type, ifNull({name}.name, ''), {_map_texts(f'{name}.attributes')}"


def _map_texts(name: str) -> str:
    return f"arrayStringConcat(mapKeys({name}), ' '), arrayStringConcat(mapValues({name}), ' ')"


# Without the blanks, the end of one broken text and the start of the next could form a valid character.
_TEXTS = f"""concatWithSeparator(' ',
        {_entity_texts("actor")}, {_entity_texts("target")}, {_entity_texts("assumeNotNull(scope)")},
        assumeNotNull(request).id, {_map_texts("assumeNotNull(request).attributes")}, {_map_texts("metadata")})"""

# Behind an even number of backslashes, u0000 is not an escape: each pair is an escaped backslash.
_ESCAPED_NUL = r"(?:^|[^\\])(?:\\\\)*\\u0000".replace("\\", "\\\\")

_FAULT = f"""multiIf(
    _end != unhex('{END.hex()}'), 'trailing',
    NOT match(id, '{_UUID}'), 'id',
    NOT match(action, '{_ACTION}'), 'action',
    actor.id = '' OR actor.type = '', 'actor',
    target.id = '' OR target.type = '', 'target',
    isNotNull(scope) AND (assumeNotNull(scope).id = '' OR assumeNotNull(scope).type = ''), 'scope',
    isNotNull(request) AND assumeNotNull(request).id = '', 'request',
    version NOT BETWEEN 1 AND 65535, 'version',
    NOT startsWith(payload, '{{') OR NOT isValidJSON(payload), 'payload',
    NOT isValidUTF8({_TEXTS}) OR position({_TEXTS}, '\\0') > 0
        OR (position(payload, 'u0000') > 0 AND match(payload, '{_ESCAPED_NUL}')), 'text',
    '')"""

_COLUMNS = (
    "action, actor, target, payload, occurred_at, metadata, id, version, scope, success, request, "
    "content_hash, ingested_at, kafka_topic, kafka_topic_id, kafka_partition, kafka_offset"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatements:
    """The statements of one sink; database and stage are checked identifiers."""

    database: str
    stage: str

    @property
    def stage_table(self) -> str:
        """The records of a batch."""
        return f"{self.database}.stage_{self.stage}"

    @property
    def status_table(self) -> str:
        """A row for each staged record that is not to be inserted."""
        return f"{self.database}.status_{self.stage}"

    def create(self) -> tuple[str, ...]:
        """Create both tables, if they are missing."""
        return (
            f"""CREATE TABLE IF NOT EXISTS {self.stage_table} (
                _partition Int32, _offset Int64,
                id String, occurred_at DateTime64(9, 'UTC'), action String, version Int32,
                actor {_ENTITY}, target {_ENTITY}, payload String,
                metadata Map(String, String),
                scope Nullable({_ENTITY}), success Bool, request Nullable({_REQUEST}),
                _end FixedString({len(END)}),
                uid UUID MATERIALIZED toUUIDOrZero(id),
                uid_key UInt64 MATERIALIZED {id_key("uid")},
                content_hash UInt64 MATERIALIZED {_CONTENT_HASH},
                fault LowCardinality(String) MATERIALIZED {_FAULT}
            ) ENGINE = Memory SETTINGS allow_experimental_nullable_tuple_type = 1""",
            f"""CREATE TABLE IF NOT EXISTS {self.status_table} (
                partition Int32, offset Int64, status LowCardinality(String),
                reason LowCardinality(String), first_seen String
            ) ENGINE = Memory""",
        )

    def drop(self) -> tuple[str, ...]:
        """Drop both tables."""
        return (f"DROP TABLE IF EXISTS {self.stage_table}", f"DROP TABLE IF EXISTS {self.status_table}")

    def classify(self) -> str:
        """Write a status for each staged record that is not new. Parameters: now, topic_id.

        ``stored`` is the status of a record that an earlier attempt inserted from the same coordinates. It counts as
        new in the ledger, but is not inserted again: after a retry or a replay the ledger has the same counts.
        """
        return f"""INSERT INTO {self.status_table}
            WITH
                toUnixTimestamp64Nano({{now:DateTime64(9, 'UTC')}} + INTERVAL {FUTURE_DAYS} DAY) AS latest,
                toUnixTimestamp64Nano({{now:DateTime64(9, 'UTC')}} - INTERVAL {RETENTION_MONTHS} MONTH) AS oldest,
                sound AS (
                    SELECT _partition, _offset, uid, content_hash,
                        multiIf(fault != '', fault,
                            toUnixTimestamp64Nano(occurred_at) > latest, 'future',
                            toUnixTimestamp64Nano(occurred_at) < oldest, 'expired', '') AS reason
                    FROM {self.stage_table}
                ),
                several AS (SELECT uid FROM sound WHERE reason = '' GROUP BY uid HAVING count() > 1),
                repeated AS (
                    SELECT uid, count() AS copies, argMin(content_hash, (_partition, _offset)) AS first_hash,
                        min((_partition, _offset)) AS first_coordinates
                    FROM sound WHERE reason = '' AND uid IN (SELECT uid FROM several) GROUP BY uid
                ),
                stored AS (
                    SELECT id AS uid, any(content_hash) AS stored_hash,
                        groupArray((kafka_topic_id, kafka_partition, kafka_offset)) AS coordinates
                    FROM {self.database}.event_log
                    WHERE id_key IN (SELECT uid_key FROM {self.stage_table})
                        AND id IN (SELECT uid FROM {self.stage_table})
                    GROUP BY id
                )
            SELECT partition, offset, status, reason, first_seen FROM (
                SELECT s._partition AS partition, s._offset AS offset, s.reason AS reason,
                    has(t.coordinates, ({{topic_id:UUID}}, s._partition, s._offset)) AS is_stored_from_here,
                    notEmpty(t.coordinates) AS is_stored,
                    r.copies > 1 AND r.first_coordinates != (s._partition, s._offset) AS is_repeated,
                    multiIf(is_stored_from_here, 'stored', s.reason = 'expired', 'expired', s.reason != '', 'invalid',
                        is_stored, if(t.stored_hash = s.content_hash, 'duplicate', 'conflict'),
                        is_repeated, if(r.first_hash = s.content_hash, 'duplicate', 'conflict'),
                        '') AS status,
                    if(is_stored, (t.coordinates[1].2, t.coordinates[1].3), r.first_coordinates) AS first,
                    if(status = 'conflict', concat('partition ', toString(first.1), ' offset ', toString(first.2)), '')
                        AS first_seen
                FROM sound AS s
                LEFT JOIN repeated AS r ON r.uid = s.uid
                LEFT JOIN stored AS t ON t.uid = s.uid
            ) WHERE status != '' SETTINGS {_BY_ID}"""

    def refused(self) -> str:
        """The records that become dead letters: partition, offset, status, reason, first_seen."""
        return (
            f"SELECT partition, offset, status, reason, first_seen FROM {self.status_table} "
            f"WHERE status IN {REFUSED} ORDER BY partition, offset"
        )

    def insert(self) -> str:
        """Store the new records. Parameters: now, topic, topic_id."""
        return f"""INSERT INTO {self.database}.event_log ({_COLUMNS})
            SELECT action, actor, target, payload, occurred_at, metadata, uid, toUInt16(version),
                assumeNotNull(scope), success, assumeNotNull(request), content_hash,
                {{now:DateTime64(3, 'UTC')}}, {{topic:String}}, {{topic_id:UUID}}, _partition, _offset
            FROM {self.stage_table}
            WHERE (_partition, _offset) NOT IN (SELECT partition, offset FROM {self.status_table})"""

    def is_stored(self) -> str:
        """Whether the new records' ids are stored from the batch's coordinates alone; and how many are staged.

        If so, no record is missing, and no other sink stored one of them at the same time. This is the usual case, so
        it is checked by a sum of hashes, at half the cost of comparing row by row. Parameter: topic_id.
        """
        return f"""SELECT staged.1 = stored.1 AND staged.2 = stored.2, (SELECT count() FROM {self.stage_table}) FROM (
            SELECT (
                SELECT (count(), sum(cityHash64(uid, {{topic_id:UUID}}, _partition, _offset)))
                FROM {self.stage_table} WHERE {self._is_to_be_stored}
            ) AS staged, (
                SELECT (count(), sum(cityHash64(id, kafka_topic_id, kafka_partition, kafka_offset)))
                FROM {self.database}.event_log WHERE {self._has_new_id}
            ) AS stored
        ) SETTINGS {_BY_ID}"""

    def insert_copies(self) -> str:
        """Note the coordinates of events that are stored more than once: a merge will leave only one of the rows."""
        return f"""INSERT INTO {self.database}.copies (topic_id, partition, offset, id)
            SELECT tupleElement(copy, 1), tupleElement(copy, 2), tupleElement(copy, 3), id FROM (
                SELECT id, groupUniqArray((kafka_topic_id, kafka_partition, kafka_offset)) AS coordinates
                FROM {self.database}.event_log WHERE {self._has_new_id}
                GROUP BY id, content_hash HAVING length(coordinates) > 1
            ) ARRAY JOIN coordinates AS copy SETTINGS {_BY_ID}"""

    def missing(self) -> str:
        """How many new records are not stored. Parameter: topic_id."""
        return f"""SELECT count() FROM {self.stage_table}
            WHERE {self._is_to_be_stored}
            AND (uid, _partition, _offset) NOT IN (
                SELECT id, kafka_partition, kafka_offset FROM {self.database}.event_log
                WHERE id_key IN (SELECT uid_key FROM {self.stage_table})
                    AND kafka_topic_id = {{topic_id:UUID}})
            SETTINGS {_BY_ID}"""

    def ledger_ends(self) -> str:
        """The last line of each partition: partition, first and last offset. Parameters: topic, topic_id."""
        return (
            f"SELECT partition, max(first_offset), max(last_offset) FROM {self.database}.ledger FINAL "
            "WHERE topic = {topic:String} AND topic_id = {topic_id:UUID} GROUP BY partition"
        )

    def ledger_ends_since(self, since: Mapping[int, int]) -> str:
        """The last line of some partitions: partition, last offset, instance. Parameters: topic, topic_id.

        ``since`` is, by partition, the first offset of the oldest line to read: older parts of the table are skipped.
        """
        lines = " OR ".join(f"(partition = {number} AND first_offset >= {first})" for number, first in since.items())
        return (
            f"SELECT partition, max(last_offset), argMax(instance, last_offset) FROM {self.database}.ledger FINAL "
            f"WHERE topic = {{topic:String}} AND topic_id = {{topic_id:UUID}} AND ({lines}) GROUP BY partition"
        )

    def ledger_lines(self, lines: Sequence[LedgerLine]) -> str:
        """Write ledger lines. Parameters: topic, topic_id, instance, now."""
        names = [field.name for field in fields(LedgerLine)]
        rows = ", ".join(str(tuple(int(getattr(line, name)) for name in names)) for line in lines)
        values = ", ".join(f"line.{number}" for number in range(1, len(names) + 1))
        return (
            f"INSERT INTO {self.database}.ledger (topic, topic_id, instance, written_at, {', '.join(names)}) "
            "SELECT {topic:String}, {topic_id:UUID}, {instance:String}, {now:DateTime64(3, 'UTC')}, "
            f"{values} FROM (SELECT arrayJoin([{rows}]) AS line)"
        )

    def stale_stages(self) -> str:
        """Names of stages that are more than a day old: their sinks were killed."""
        return (
            "SELECT name FROM system.tables WHERE database = {database:String} "
            "AND match(name, '^(stage|status)_[0-9a-f]{12}$') "
            "AND metadata_modification_time < now() - INTERVAL 1 DAY"
        )

    @property
    def _is_to_be_stored(self) -> str:
        return (
            f"(_partition, _offset) NOT IN (SELECT partition, offset FROM {self.status_table} WHERE status != 'stored')"
        )

    @property
    def _has_new_id(self) -> str:
        stage = f"{self.stage_table} WHERE {self._is_to_be_stored}"
        return f"id_key IN (SELECT uid_key FROM {stage}) AND id IN (SELECT uid FROM {stage})"
