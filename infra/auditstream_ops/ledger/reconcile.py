"""Finds ids that readers see more than once. Sinks that wrote at the same time may cause them.

The query reads the table in slices of the projection that is ordered by id. So memory is bounded by a slice, and no row
is read twice. Then all rows of the repeated ids are read, within their time range.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from clickhouse_connect.driver.client import Client

from auditstream_ops.clickhouse import clickhouse_errors

LISTED_AT_MOST = 100
"""Repeated ids that are listed; the rest are counted."""

SLICE_IDS = 2_000_000
"""Rows that are grouped by id at once, roughly; a million take some 50 MB."""

_ROWS_LISTED = 10
_SAMPLES_A_SLICE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedRow:
    """A row of an id that is visible more than once, with its coordinates.

    Attributes:
        ingested_at: Time of the sink's batch, UTC.
        occurred_at: The event's own time, as ISO-8601 in UTC, to the nanosecond.
        scope_id: Id of the event's scope; empty if it has none.
        content_hash: Hash of the event's fields, as text.
    """

    ingested_at: datetime
    occurred_at: str
    scope_id: str
    content_hash: str
    topic: str
    topic_id: UUID
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedId:
    """An id that readers see more than once.

    Attributes:
        id: The id.
        visible: Number of its rows that readers see.
        has_other_key: Whether the rows differ in scope or time; otherwise they differ in content only.
        rows: Its rows, the earliest ingested first; at most ten.
    """

    id: UUID
    visible: int
    has_other_key: bool
    rows: Sequence[RepeatedRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """The result of `reconcile`.

    Attributes:
        rows: Rows of the table.
        visible: Rows that readers see.
        other_keys: Ids visible more than once, with another scope or time.
        other_contents: Ids visible more than once that differ in content only.
        repeated: These ids; at most LISTED_AT_MOST.
    """

    rows: int
    visible: int
    other_keys: int
    other_contents: int
    repeated: Sequence[RepeatedId]

    @property
    def uncollapsed(self) -> int:
        """Rows that no reader sees, and that a merge will remove. Harmless."""
        return max(0, self.rows - self.visible)


def reconcile(client: Client, database: str, *, slice_ids: int = SLICE_IDS) -> ReconcileReport:
    """Look for ids that are visible more than once, in groups of so many rows. Changes nothing; blocks on ClickHouse.

    Raises:
        OperationError: ClickHouse fails.
    """
    other_keys = other_contents = 0
    repeated: list[RepeatedId] = []
    with clickhouse_errors():
        [(rows,)] = client.query(f"SELECT count() FROM {database}.event_log").result_rows
        [(visible,)] = client.query(f"SELECT count() FROM {database}.events").result_rows
        for condition in _slices(client, database, rows, slice_ids):
            for keys, contents, listed in client.query(_slice(database, condition)).result_rows:
                other_keys += keys
                other_contents += contents
                repeated += [_repeated_id(*values) for values in listed[: LISTED_AT_MOST - len(repeated)]]
    return ReconcileReport(
        rows=rows, visible=visible, other_keys=other_keys, other_contents=other_contents, repeated=repeated
    )


def _slices(client: Client, database: str, rows: int, slice_ids: int) -> Iterator[str]:
    """Conditions that select every id exactly once: ranges between the ids of a sample."""
    every = max(1, slice_ids // _SAMPLES_A_SLICE)
    bounds: list[int] = []
    if rows > slice_ids:
        sample = client.query(
            f"SELECT id_key FROM {database}.event_log WHERE cityHash64(id) % {every} = 0 ORDER BY id_key"
        ).result_rows
        bounds = [id_key for (id_key,) in sample[_SAMPLES_A_SLICE::_SAMPLES_A_SLICE]]
    for low, high in zip([0, *bounds], [*bounds, None], strict=True):
        # ClickHouse uses the projection only if there is a comparison, so the first slice has one, too.
        yield f"id_key >= {low}" + ("" if high is None else f" AND id_key < {high}")


def _slice(database: str, condition: str) -> str:
    """The ids of a slice that are visible more than once: their number, and their rows."""
    repeated = (
        f"SELECT id, min(occurred_at) AS earliest, max(occurred_at) AS latest "
        f"FROM {database}.event_log WHERE {condition} GROUP BY id HAVING count() > 1"
    )
    return f"""
        WITH repeated AS ({repeated}),
            (SELECT (min(earliest), max(latest)) FROM repeated) AS time_range
        SELECT countIf(keys > 1), countIf(keys = 1),
            groupArray({LISTED_AT_MOST})((id, visible, keys > 1, copies))
        FROM (
            SELECT id, uniqExact(scope.id, occurred_at) AS keys,
                uniqExact(scope.id, occurred_at, content_hash) AS visible,
                arraySort(groupArray({_ROWS_LISTED})((
                    ingested_at, concat(replaceOne(toString(occurred_at), ' ', 'T'), 'Z'), scope.id,
                    toString(content_hash), toString(kafka_topic),
                    kafka_topic_id, kafka_partition, kafka_offset))) AS copies
            FROM {database}.event_log
            WHERE occurred_at >= time_range.1 AND occurred_at <= time_range.2
                AND id IN (SELECT id FROM repeated)
            GROUP BY id HAVING visible > 1 ORDER BY id)"""


def _repeated_id(id: UUID, visible: int, has_other_key: int, rows: Sequence[tuple[Any, ...]]) -> RepeatedId:
    repeated = tuple(RepeatedRow(**dict(zip(RepeatedRow.__slots__, row, strict=True))) for row in rows)
    return RepeatedId(id=id, visible=visible, has_other_key=bool(has_other_key), rows=repeated)
