"""The books of one topic id, added up and held against the event log.

Everything is added up by ClickHouse; only what is wrong comes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from clickhouse_connect.driver.client import Client

from auditstream_ops.clickhouse import asking
from auditstream_ops.ledger.ledger_queries import LedgerQueries
from auditstream_storage import COUNTS, LedgerTotals, id_key

LISTED_AT_MOST = 100
"""Findings of a partition that are listed; the rest are counted."""

_SETTINGS = {
    "max_bytes_before_external_sort": 500_000_000,
    "max_bytes_before_external_group_by": 500_000_000,
    "max_query_size": 10_000_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionTotals(LedgerTotals):
    """The ledger of one partition, added up.

    Attributes:
        partition: Kafka partition.
        first_offset: First offset in the ledger.
        last_offset: Last offset in the ledger, inclusive.
    """

    partition: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Offsets that a person entered as lost.

    Attributes:
        first_offset: First of them.
        last_offset: Last of them, inclusive.
        at: When they were entered, as ISO-8601 in UTC.
        by: By whom, as ``user@host``.
        reason: The reason given.
    """

    first_offset: int
    last_offset: int
    at: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A ledger line that is wrong, or hollow, or does not follow the one before it.

    Attributes:
        partition: Kafka partition.
        first_offset: First offset of the line.
        last_offset: Last offset of the line, inclusive.
        read: Records read.
        stored: New rows.
        others: Duplicates, conflicts, invalid and expired together.
        lost: Offsets that a person entered as lost.
        rows: Offsets of the line that have a visible row in the event log.
        elsewhere: Further rows that are visible as copies, from another place that a sink noted.
        noted: Rows that are visible from here, of events that a sink noted at another place, too.
        stray: Offsets before the line and after those before it that have one.
        reached: Where the lines before this one end, the farthest of them, inclusive; nothing for the first.
        is_fault: Whether something is wrong with it; else it is merely hollow.
        is_past: Whether all its rows are older than the retention by now, and may have gone.
    """

    partition: int
    first_offset: int
    last_offset: int
    read: int
    stored: int
    others: int
    lost: int
    rows: int
    elsewhere: int
    noted: int
    stray: int
    reached: int | None
    is_fault: bool
    is_past: bool

    @property
    def offsets(self) -> int:
        """How many offsets the line spans."""
        return self.last_offset - self.first_offset + 1

    @property
    def is_hollow(self) -> bool:
        """Whether some of its offsets held no record."""
        return self.read + self.lost < self.offsets

    @property
    def lacks_rows(self) -> bool:
        """Whether rows are missing that are not surely past the retention."""
        return self.rows + self.elsewhere < self.stored and not self.is_past


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of the event log from one partition.

    Attributes:
        within: Rows up to the end of the books.
        ahead: Rows beyond it: of a batch that is being written, or will be taken again.
        doubled: Visible rows of an offset that has another one.
    """

    within: int
    ahead: int
    doubled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """What the list of findings does not tell.

    Attributes:
        findings: All findings of the partition that are faults.
        hollow: All lines that only held offsets without a record.
        expired_since: Rows of lines that are past the retention, and are gone.
    """

    findings: int
    hollow: int
    expired_since: int


class LedgerReader:
    """Questions to the books of one topic id. Every method blocks on ClickHouse, minutes if they are large.

    What a running sink adds after ``totals`` was asked is left out of all the other answers.

    Args:
        client: ClickHouse.
        database: A checked identifier.
        topic: The topic's name.
        topic_id: The id of the topic whose books are meant.

    Every method raises OperationError when ClickHouse fails.
    """

    def __init__(self, client: Client, database: str, topic: str, topic_id: UUID) -> None:
        self._client = client
        self._sql = LedgerQueries(database=database, ends={})
        self._parameters = {"topic": topic, "topic_id": str(topic_id)}

    def totals(self) -> dict[int, PartitionTotals]:
        """The books of each partition, added up."""
        sums = ", ".join(f"sum({name})" for name in COUNTS)
        rows = self._rows(
            f"SELECT partition, min(first_offset), max(last_offset), count(), {sums} "
            f"FROM ({self._sql.lines()}) GROUP BY partition"
        )
        names = ("partition", "first_offset", "last_offset", "batches", *COUNTS)
        totals = [PartitionTotals(**dict(zip(names, map(int, row), strict=True))) for row in rows]
        self._sql = replace(self._sql, ends={total.partition: total.last_offset for total in totals})
        return {total.partition: total for total in totals}

    def rows(self) -> dict[int, Rows]:
        """The visible rows of the event log, by partition."""
        rows = self._rows(
            "SELECT partition, sumIf(count, is_within), sumIf(count, NOT is_within), sum(count - bitCount(mask)) "
            f"FROM ({self._sql.masks()}) GROUP BY partition"
        )
        return {int(row[0]): Rows(within=int(row[1]), ahead=int(row[2]), doubled=int(row[3])) for row in rows}

    def findings(self) -> dict[int, list[Finding]]:
        """What may be wrong, by partition and offset: at most LISTED_AT_MOST each, lines merely hollow last."""
        rows = self._rows(
            "SELECT partition, first, last, read, stored, others, lost, rows, stray, reached, is_opening, is_fault, "
            f"is_past FROM ({self._sql.judged()}) WHERE is_fault OR is_hollow "
            f"ORDER BY partition, is_fault DESC, first, last LIMIT {LISTED_AT_MOST} BY partition"
        )
        found: dict[int, list[Finding]] = {}
        hidden, shown = self._copies() if any(row[7] != row[4] for row in rows) else ({}, {})
        for row in rows:
            partition, first, last, read, stored, others, lost, count, stray, reached, is_opening, is_fault, is_past = (
                row
            )
            found.setdefault(int(partition), []).append(
                Finding(
                    partition=int(partition),
                    first_offset=int(first),
                    last_offset=int(last),
                    read=int(read),
                    stored=int(stored),
                    others=int(others),
                    lost=int(lost),
                    rows=int(count),
                    elsewhere=sum(int(first) <= offset <= int(last) for offset in hidden.get(int(partition), ())),
                    noted=sum(int(first) <= offset <= int(last) for offset in shown.get(int(partition), ())),
                    stray=int(stray),
                    reached=None if is_opening else int(reached),
                    is_fault=bool(is_fault),
                    is_past=bool(is_past),
                )
            )
        return found

    def _copies(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Offsets of events that two sinks stored at once: those shown from another place, and those shown."""
        ids = f"SELECT id FROM {self._sql.database}.copies WHERE topic_id = {{topic_id:UUID}}"
        rows = self._rows(
            "SELECT partition, groupUniqArrayIf(offset, NOT is_shown), groupUniqArrayIf(offset, is_shown) FROM ("
            "SELECT partition, offset, (partition, offset) IN "
            f"(SELECT kafka_partition, kafka_offset FROM {self._sql.database}.events "
            f"WHERE kafka_topic_id = {{topic_id:UUID}} AND id IN ({ids})) AS is_shown "
            f"FROM {self._sql.database}.copies WHERE topic_id = {{topic_id:UUID}} AND id IN "
            f"(SELECT id FROM {self._sql.database}.event_log "
            f"WHERE id_key IN (SELECT {id_key('id')} FROM ({ids})))) GROUP BY partition"
        )
        hidden = {int(partition): list(map(int, offsets)) for partition, offsets, _ in rows}
        return hidden, {int(partition): list(map(int, offsets)) for partition, _, offsets in rows}

    def rivals(self, lines: Sequence[Finding]) -> dict[int, set[int]]:
        """Offsets of these lines, by partition, whose id is stored with other content, too: for `reconcile` to show."""
        within = " OR ".join(
            f"(kafka_partition = {line.partition} AND kafka_offset BETWEEN {line.first_offset} AND {line.last_offset})"
            for line in lines
        )
        log = f"{self._sql.database}.event_log"
        mine = f"kafka_topic_id = {{topic_id:UUID}} AND ({within})"
        rows = self._rows(
            f"SELECT kafka_partition, groupUniqArray(kafka_offset) FROM {log} WHERE {mine} AND id IN ("
            f"SELECT id FROM {log} WHERE id_key IN (SELECT id_key FROM {log} WHERE {mine}) "
            "GROUP BY id HAVING uniqExact(content_hash, occurred_at, scope.id) > 1) GROUP BY kafka_partition"
        )
        return {int(partition): set(map(int, offsets)) for partition, offsets in rows}

    def losses(self) -> dict[int, list[Loss]]:
        """What was accepted as lost, by partition and offset."""
        rows = self._rows(
            "SELECT partition, first_offset, last_offset, formatDateTime(written_at, '%FT%TZ', 'UTC'), instance, "
            f"reason FROM ({self._sql.lines('AND lost > 0')}) ORDER BY partition, first_offset"
        )
        found: dict[int, list[Loss]] = {}
        for partition, first, last, at, by, reason in rows:
            loss = Loss(first_offset=int(first), last_offset=int(last), at=str(at), by=str(by), reason=str(reason))
            found.setdefault(int(partition), []).append(loss)
        return found

    def extra(self) -> dict[int, Extra]:
        """How much there is beyond the list, and how many rows have gone lawfully."""
        rows = self._rows(
            "SELECT partition, countIf(is_fault), countIf(is_hollow AND NOT is_fault), "
            f"sumIf(toInt64(stored) - rows, is_past AND rows < stored) FROM ({self._sql.judged()}) GROUP BY partition"
        )
        return {int(row[0]): Extra(findings=int(row[1]), hollow=int(row[2]), expired_since=int(row[3])) for row in rows}

    def _rows(self, query: str) -> Sequence[Sequence[Any]]:
        with asking():
            rows: Sequence[Sequence[Any]] = self._client.query(
                query, parameters=self._parameters, settings=_SETTINGS
            ).result_rows
        return rows


def topic_ids(client: Client, database: str, topic: str) -> list[UUID]:
    """The ids of a topic that have books, the oldest first. Blocks on ClickHouse."""
    rows = client.query(
        f"SELECT topic_id FROM {database}.ledger WHERE topic = {{topic:String}} "
        "GROUP BY topic_id ORDER BY min(written_at)",
        parameters={"topic": topic},
    ).result_rows
    return [row[0] for row in rows]
