"""What sinks that wrote at once may have left behind: an id that is there more than once.

The ids of the table are gone through in slices of the projection that is ordered by id, so memory is bounded
by a slice and no row is read twice, whatever the table holds. Of an id that is there more than once all rows
are looked at, within the time that they span.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from auditstream_schemas.errors import OperationError
from auditstream_storage import error_text

LISTED_AT_MOST = 100
"""Ids that are listed; the rest are counted."""

SLICE_IDS = 2_000_000
"""About as many rows are grouped by id at once; a million take some 50 MB."""

_ROWS_LISTED = 10
_SAMPLES_A_SLICE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A row of an id that is visible more than once.

    Attributes:
        ingested_at: When the sink took it, UTC.
        occurred_at: The event's own time, as ISO-8601 in UTC, to the nanosecond.
        scope_id: Id of the event's scope; empty if it has none.
        content_hash: Of the event's fields, as text.
        topic: Kafka topic.
        topic_id: Id of that topic.
        partition: Kafka partition.
        offset: Kafka offset.
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
class Doubled:
    """An id that readers see more than once.

    Attributes:
        id: The id.
        visible: How many of its rows are visible.
        has_other_key: Whether they differ in scope or time; else only in content.
        copies: Its rows, the first to come first; at most ten.
    """

    id: UUID
    visible: int
    has_other_key: bool
    copies: Sequence[Copy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What reconciling found.

    Attributes:
        rows: Rows of the table.
        visible: Rows that readers see.
        other_keys: Ids visible more than once, with another scope or time.
        other_contents: Ids visible more than once that differ in content alone.
        doubled: These ids; at most LISTED_AT_MOST.
    """

    rows: int
    visible: int
    other_keys: int
    other_contents: int
    doubled: Sequence[Doubled]

    @property
    def uncollapsed(self) -> int:
        """Rows that no reader sees, until a merge removes them. Harmless."""
        return max(0, self.rows - self.visible)


def reconcile(client: Client, database: str, *, slice_ids: int = SLICE_IDS) -> Findings:
    """Look for ids that are visible more than once. Changes nothing; blocks on ClickHouse.

    Args:
        client: ClickHouse.
        database: A checked identifier.
        slice_ids: How many rows to group at once.

    Raises:
        OperationError: ClickHouse fails.
    """
    other_keys = other_contents = 0
    doubled: list[Doubled] = []
    try:
        [(rows,)] = client.query(f"SELECT count() FROM {database}.event_log").result_rows
        [(visible,)] = client.query(f"SELECT count() FROM {database}.events").result_rows
        for condition in _slices(client, database, int(rows), slice_ids):
            for keys, contents, listed in client.query(_slice(database, condition)).result_rows:
                other_keys += int(keys)
                other_contents += int(contents)
                doubled += [_doubled(each) for each in listed[: LISTED_AT_MOST - len(doubled)]]
    except ClickHouseError as error:
        raise OperationError(f"ClickHouse: {error_text(error)}") from error
    return Findings(
        rows=int(rows),
        visible=int(visible),
        other_keys=other_keys,
        other_contents=other_contents,
        doubled=doubled,
    )


def _slices(client: Client, database: str, rows: int, slice_ids: int) -> Iterator[str]:
    """Conditions that take every id once: between ids of a sample, in their order."""
    every = max(1, slice_ids // _SAMPLES_A_SLICE)
    bounds: list[int] = []
    if rows > slice_ids:
        sample = client.query(
            f"SELECT id_key FROM {database}.event_log WHERE cityHash64(id) % {every} = 0 ORDER BY id_key"
        ).result_rows
        bounds = [int(row[0]) for row in sample[_SAMPLES_A_SLICE::_SAMPLES_A_SLICE]]
    for low, high in zip([0, *bounds], [*bounds, None], strict=True):
        # A comparison, be it with the least number, is what makes ClickHouse take the projection.
        begins = f"id_key >= {low}"
        yield begins if high is None else f"{begins} AND id_key < {high}"


def _slice(database: str, condition: str) -> str:
    """The ids of a slice that are visible more than once: how many, and their rows."""
    repeated = (
        f"SELECT id, min(occurred_at) AS earliest, max(occurred_at) AS latest "
        f"FROM {database}.event_log WHERE {condition} GROUP BY id HAVING count() > 1"
    )
    return f"""
        WITH repeated AS ({repeated}),
            (SELECT (min(earliest), max(latest)) FROM repeated) AS span
        SELECT countIf(keys > 1), countIf(keys = 1),
            groupArray({LISTED_AT_MOST})((id, visible, keys > 1, copies))
        FROM (
            SELECT id, uniqExact(scope.id, occurred_at) AS keys,
                uniqExact(scope.id, occurred_at, content_hash) AS visible,
                arraySort(groupArray({_ROWS_LISTED})((
                    ingested_at, toString(occurred_at), scope.id, toString(content_hash),
                    toString(kafka_topic), kafka_topic_id, kafka_partition, kafka_offset))) AS copies
            FROM {database}.event_log
            WHERE occurred_at >= span.1 AND occurred_at <= span.2
                AND id IN (SELECT id FROM repeated)
            GROUP BY id HAVING visible > 1 ORDER BY id)"""


def _doubled(found: tuple[Any, ...]) -> Doubled:
    identity, visible, has_other_key, copies = found
    return Doubled(
        id=identity,
        visible=int(visible),
        has_other_key=bool(has_other_key),
        copies=tuple(_copy(each) for each in copies),
    )


def _copy(found: tuple[Any, ...]) -> Copy:
    ingested_at, occurred_at, scope_id, content_hash, topic, topic_id, partition, offset = found
    return Copy(
        ingested_at=ingested_at,
        occurred_at=f"{occurred_at.replace(' ', 'T')}Z",
        scope_id=scope_id,
        content_hash=content_hash,
        topic=topic,
        topic_id=topic_id,
        partition=int(partition),
        offset=int(offset),
    )
