"""Compares the ledger of one topic id with the event log, in ClickHouse: it returns sums, and faulty or hollow lines.

One pass over the offsets of a topic compares them. The query sorts two kinds of elements by offset: the begin and the
end of each ledger line, and blocks of 64 offsets with one bit for each visible row of the event log. There are far
fewer elements than rows. Running sums over them give gaps, overlaps, rows outside of all lines, and the rows of each
line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from clickhouse_connect.driver.client import Client

from auditstream_ops.clickhouse import clickhouse_errors
from auditstream_sink import FUTURE_DAYS
from auditstream_storage import COUNTS, RETENTION_MONTHS, LedgerTotals, adds_up, id_key

LISTED_AT_MOST = 100
"""Largest number of findings that are listed for a partition; the others are counted."""

_BLOCK, _BEGIN, _END = 0, 1, 2
"""Kinds of elements, in the order in which they are sorted at the same offset."""

_SETTINGS = {
    "max_bytes_before_external_sort": 500_000_000,
    "max_bytes_before_external_group_by": 500_000_000,
    "max_query_size": 10_000_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionTotals(LedgerTotals):
    """The sums of one partition's ledger, and its first and last offset, both inclusive."""

    partition: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Offsets that a person (``user@host``) recorded as lost at a time (ISO-8601, UTC), with the reason."""

    first_offset: int
    last_offset: int
    at: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A ledger line with its offsets and counts that is faulty, or hollow, or does not follow the line before it.

    Attributes:
        others: Duplicates, conflicts, invalid and expired together.
        rows: Offsets of the line that have a visible row in the event log.
        elsewhere: Further events of the line whose visible row has other coordinates, which a sink noted.
        noted: Visible rows with an offset of the line, of events that a sink noted at other coordinates, too.
        stray: Offsets between this line and the lines before it that have a visible row.
        reached: The last offset of all lines before this one, inclusive; None for the first line.
        is_fault: Whether the line is faulty; otherwise it is only hollow.
        is_past: Whether all its rows are older than the retention, and may be deleted.
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
        """The number of offsets of the line."""
        return self.last_offset - self.first_offset + 1

    @property
    def is_hollow(self) -> bool:
        """Whether some of its offsets had no record."""
        return self.read + self.lost < self.offsets

    @property
    def lacks_rows(self) -> bool:
        """Whether rows are missing that may still be within the retention."""
        return self.rows + self.elsewhere < self.stored and not self.is_past


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of the event log from one partition.

    Attributes:
        within: Rows up to the end of the ledger.
        ahead: Rows beyond the end of the ledger: of a batch that is being written, or will be read again.
        doubled: Visible rows whose offset has another visible row.
    """

    within: int = 0
    ahead: int = 0
    doubled: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """The counts beside the list of findings.

    Attributes:
        findings: Number of faulty lines of the partition.
        hollow: Number of lines that are hollow and not faulty.
        expired_since: Number of rows that are deleted, of lines that are past the retention.
    """

    findings: int = 0
    hollow: int = 0
    expired_since: int = 0


class LedgerReader:
    """Reads the ledger of one topic id.

    Every method blocks on ClickHouse, for minutes if the ledger is large, and raises OperationError if ClickHouse
    fails. Lines that a running sink writes after the call of ``totals`` are left out of all other answers.

    Args:
        client: ClickHouse.
        database: A checked identifier.
        topic: The topic's name.
        topic_id: The id of the topic.
    """

    def __init__(self, client: Client, database: str, topic: str, topic_id: UUID) -> None:
        self._client = client
        self._database = database
        # The last offset of each partition's ledger. Later lines and rows are left out.
        self._ends: dict[int, int] = {}
        self._parameters = {"topic": topic, "topic_id": str(topic_id)}

    def totals(self) -> dict[int, PartitionTotals]:
        """The sums of each partition's ledger."""
        sums = ", ".join(f"sum(lines.{name}) AS {name}" for name in COUNTS)
        rows = self._rows(
            "SELECT partition, min(lines.first_offset) AS first_offset, max(lines.last_offset) AS last_offset, "
            f"count() AS batches, {sums} FROM ({self._lines()}) AS lines GROUP BY partition"
        )
        totals = {row["partition"]: PartitionTotals(**row) for row in rows}
        self._ends = {partition: total.last_offset for partition, total in totals.items()}
        return totals

    def rows(self) -> dict[int, Rows]:
        """The visible rows of the event log, by partition."""
        rows = self._rows(
            "SELECT partition, sumIf(count, is_within) AS within, sumIf(count, NOT is_within) AS ahead, "
            f"sum(count - bitCount(mask)) AS doubled FROM ({self._masks()}) GROUP BY partition"
        )
        return {row.pop("partition"): Rows(**row) for row in rows}

    def findings(self) -> dict[int, list[Finding]]:
        """Faulty lines, then hollow lines, by partition and offset: at most LISTED_AT_MOST for each partition."""
        rows = self._rows(
            "SELECT partition, first AS first_offset, last AS last_offset, read, stored, others, lost, rows, stray, "
            "if(lines.is_opening, NULL, lines.reached) AS reached, is_fault, is_past "
            f"FROM ({self._classified_lines()}) AS lines WHERE is_fault OR is_hollow "
            f"ORDER BY partition, is_fault DESC, first, last LIMIT {LISTED_AT_MOST} BY partition"
        )
        hidden, visible = self._copies() if any(row["rows"] != row["stored"] for row in rows) else ({}, {})
        findings: dict[int, list[Finding]] = {}
        for row in rows:
            elsewhere, noted = _within(row, hidden), _within(row, visible)
            findings.setdefault(row["partition"], []).append(Finding(**row, elsewhere=elsewhere, noted=noted))
        return findings

    def _copies(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Offsets of events that two sinks stored at once: the hidden ones and the visible ones, by partition."""
        ids = f"SELECT id FROM {self._database}.copies WHERE topic_id = {{topic_id:UUID}}"
        rows = self._rows(
            "SELECT partition, groupUniqArrayIf(offset, NOT is_visible) AS hidden, "
            "groupUniqArrayIf(offset, is_visible) AS visible FROM ("
            "SELECT partition, offset, (partition, offset) IN "
            f"(SELECT kafka_partition, kafka_offset FROM {self._database}.events "
            f"WHERE kafka_topic_id = {{topic_id:UUID}} AND id IN ({ids})) AS is_visible "
            f"FROM {self._database}.copies WHERE topic_id = {{topic_id:UUID}} AND id IN "
            f"(SELECT id FROM {self._database}.event_log "
            f"WHERE id_key IN (SELECT {id_key('id')} FROM ({ids})))) GROUP BY partition"
        )
        return {row["partition"]: row["hidden"] for row in rows}, {row["partition"]: row["visible"] for row in rows}

    def rivals(self, lines: Sequence[Finding]) -> dict[int, set[int]]:
        """Offsets of these lines, by partition, whose id is also stored with other content; `reconcile` lists them."""
        within = " OR ".join(
            f"(kafka_partition = {line.partition} AND kafka_offset BETWEEN {line.first_offset} AND {line.last_offset})"
            for line in lines
        )
        log = f"{self._database}.event_log"
        own = f"kafka_topic_id = {{topic_id:UUID}} AND ({within})"
        rows = self._rows(
            f"SELECT kafka_partition AS partition, groupUniqArray(kafka_offset) AS offsets FROM {log} WHERE {own} "
            f"AND id IN (SELECT id FROM {log} WHERE id_key IN (SELECT id_key FROM {log} WHERE {own}) "
            "GROUP BY id HAVING uniqExact(content_hash, occurred_at, scope.id) > 1) GROUP BY kafka_partition"
        )
        return {row["partition"]: set(row["offsets"]) for row in rows}

    def losses(self) -> dict[int, list[Loss]]:
        """The offsets that were recorded as lost, by partition and offset."""
        losses: dict[int, list[Loss]] = {}
        for row in self._rows(
            "SELECT partition, first_offset, last_offset, formatDateTime(written_at, '%FT%TZ', 'UTC') AS at, "
            f"instance AS by, reason FROM ({self._lines('AND lost > 0')}) ORDER BY partition, first_offset"
        ):
            losses.setdefault(row.pop("partition"), []).append(Loss(**row))
        return losses

    def extra(self) -> dict[int, Extra]:
        """The number of findings, and of rows that the retention has deleted, by partition."""
        rows = self._rows(
            "SELECT partition, countIf(is_fault) AS findings, countIf(is_hollow AND NOT is_fault) AS hollow, "
            "sumIf(toInt64(stored) - rows, is_past AND rows < stored) AS expired_since "
            f"FROM ({self._classified_lines()}) GROUP BY partition"
        )
        return {row.pop("partition"): Extra(**row) for row in rows}

    def _rows(self, query: str) -> list[dict[str, Any]]:
        with clickhouse_errors():
            result = self._client.query(query, parameters=self._parameters, settings=_SETTINGS)
        return list(result.named_results())

    def _lines(self, condition: str = "") -> str:
        """The valid lines. FINAL selects, of lines with the same first offset, the one with the latest fencing time."""
        return (
            "SELECT partition, first_offset, last_offset, read, stored, duplicates, conflicts, invalid, expired, lost, "
            f"instance, reason, written_at FROM {self._database}.ledger FINAL "
            f"WHERE topic = {{topic:String}} AND topic_id = {{topic_id:UUID}} {condition}"
        )

    def _end(self, partition: str) -> str:
        if not self._ends:
            return "-1"
        return f"transform({partition}, {list(self._ends)}, {list(self._ends.values())}, toInt64(-1))"

    def _masks(self, condition: str = "") -> str:
        """The offsets that have a visible row, as bits of blocks of 64, and the number of these rows."""
        return f"""
            SELECT kafka_partition AS partition, intDiv(kafka_offset, 64) AS block,
                kafka_offset <= {self._end("kafka_partition")} AS is_within,
                toUInt64(groupBitOr(bitShiftLeft(toUInt64(1), toUInt8(kafka_offset % 64)))) AS mask, count() AS count
            FROM {self._database}.events WHERE kafka_topic_id = {{topic_id:UUID}} {condition}
            GROUP BY partition, block, is_within"""

    def _classified_lines(self) -> str:
        """All lines, each with its faults."""
        end = self._end("kafka_partition")
        elements = f"""
            SELECT partition, toInt64(block) * 64 AS pos, toUInt8({_BLOCK}) AS kind, mask, toInt64(0) AS opens,
                toInt64(0) AS closes, toUInt64(0) AS read, toUInt64(0) AS stored, toUInt64(0) AS others,
                toUInt64(0) AS lost, toDateTime64(0, 3, 'UTC') AS written_at
            FROM ({self._masks(f"AND kafka_offset <= {end}")})
            UNION ALL
            SELECT partition, mark.1, mark.2, toUInt64(0), toInt64(first_offset), toInt64(last_offset), read, stored,
                duplicates + conflicts + invalid + expired, lost, written_at
            FROM ({self._lines(f"AND last_offset <= {self._end('partition')}")})
            ARRAY JOIN [(toInt64(first_offset), toUInt8({_BEGIN})), (toInt64(last_offset), toUInt8({_END}))] AS mark"""
        # Rows before a begin, or up to an end: the rows of all blocks so far, without the later rows of the same block.
        counted = f"""
            SELECT * EXCEPT (mask),
                sum(bitCount(mask)) OVER here AS passed,
                max(if(kind = {_BLOCK}, pos, -64)) OVER here AS block_pos,
                argMax(mask, if(kind = {_BLOCK}, pos, -64)) OVER here AS block_mask,
                if(block_pos = intDiv(pos, 64) * 64, block_mask, toUInt64(0)) AS own,
                bitShiftRight(bitShiftRight(own, toUInt8(pos % 64)), toUInt8(kind = {_END})) AS later,
                passed - bitCount(later) AS rows_so_far
            FROM ({elements})
            WINDOW here AS (
                PARTITION BY partition ORDER BY pos, kind, closes ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"""
        followed = f"""
            SELECT *, max(if(kind = {_BEGIN}, closes, -1)) OVER above AS before, count() OVER above = 0 AS is_first,
                toInt64(rows_so_far) - toInt64(max(if(kind = {_END}, rows_so_far, 0)) OVER above) AS rows_between
            FROM ({counted}) WHERE kind != {_BLOCK}
            WINDOW above AS (
                PARTITION BY partition ORDER BY pos, kind, closes ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"""
        grouped = f"""
            SELECT partition, opens AS first, closes AS last, read, stored, others, lost, max(written_at) AS written_at,
                toInt64(maxIf(rows_so_far, kind = {_END})) - toInt64(minIf(rows_so_far, kind = {_BEGIN})) AS rows,
                minIf(before, kind = {_BEGIN}) AS reached, maxIf(is_first, kind = {_BEGIN}) AS is_opening,
                if(is_opening OR reached + 1 < first, minIf(rows_between, kind = {_BEGIN}), 0) AS stray
            FROM ({followed}) GROUP BY partition, first, last, read, stored, others, lost"""
        # No row of a line is younger than this: the table's TTL counts from the time at which an event occurred.
        return f"""
            SELECT *,
                written_at + INTERVAL {FUTURE_DAYS} DAY + INTERVAL {RETENTION_MONTHS} MONTH < now64(3, 'UTC')
                    AS is_past,
                read + lost < last - first + 1 AS is_hollow,
                NOT is_opening AND reached + 1 != first
                OR stray > 0
                OR NOT {adds_up(first="first", last="last", unstored="others")}
                OR rows > stored
                OR rows < stored AND NOT is_past AS is_fault
            FROM ({grouped})"""


def topic_ids(client: Client, database: str, topic: str) -> list[UUID]:
    """The ids of a topic that have ledger lines, the oldest first; blocks on ClickHouse and raises as the reader."""
    query = (
        f"SELECT topic_id FROM {database}.ledger WHERE topic = {{topic:String}} "
        "GROUP BY topic_id ORDER BY min(written_at)"
    )
    with clickhouse_errors():
        return [topic_id for (topic_id,) in client.query(query, parameters={"topic": topic}).result_rows]


def _within(line: Mapping[str, Any], offsets: Mapping[int, Sequence[int]]) -> int:
    """The number of offsets of its partition that are within the line."""
    return sum(line["first_offset"] <= offset <= line["last_offset"] for offset in offsets.get(line["partition"], ()))
