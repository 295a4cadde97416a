"""The SQL that compares the ledger with the event log in one pass over the offsets of a topic.

The query sorts two kinds of elements by offset: the begin and the end of each ledger line, and blocks of 64 offsets
with one bit for each visible row of the event log. There are far fewer elements than rows. Running sums over them give
gaps, overlaps, rows outside of all lines, and the rows of each line. Parameters of all statements: topic, topic_id.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from auditstream_sink import FUTURE_DAYS
from auditstream_storage import RETENTION_MONTHS, adds_up

_BLOCK, _BEGIN, _END = 0, 1, 2
"""Kinds of elements, in the order in which they are sorted at the same offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerQueries:
    """Statements about the ledger of one topic id.

    Attributes:
        database: A checked identifier.
        ends: The last offset of each partition's ledger; later lines and rows are left out.
    """

    database: str
    ends: Mapping[int, int]

    def lines(self, condition: str = "") -> str:
        """The valid lines. FINAL selects, of lines with the same first offset, the one with the latest fencing time."""
        return (
            "SELECT partition, first_offset, last_offset, read, stored, duplicates, conflicts, invalid, expired, lost, "
            f"instance, reason, written_at FROM {self.database}.ledger FINAL "
            f"WHERE topic = {{topic:String}} AND topic_id = {{topic_id:UUID}} {condition}"
        )

    def _end(self, partition: str) -> str:
        if not self.ends:
            return "-1"
        return f"transform({partition}, {list(self.ends)}, {list(self.ends.values())}, toInt64(-1))"

    def masks(self, condition: str = "") -> str:
        """The offsets that have a visible row, as bits of blocks of 64, and the number of these rows."""
        return f"""
            SELECT kafka_partition AS partition, intDiv(kafka_offset, 64) AS block,
                kafka_offset <= {self._end("kafka_partition")} AS is_within,
                toUInt64(groupBitOr(bitShiftLeft(toUInt64(1), toUInt8(kafka_offset % 64)))) AS mask, count() AS count
            FROM {self.database}.events WHERE kafka_topic_id = {{topic_id:UUID}} {condition}
            GROUP BY partition, block, is_within"""

    def classified_lines(self) -> str:
        """All lines, each with its faults."""
        end = self._end("kafka_partition")
        elements = f"""
            SELECT partition, toInt64(block) * 64 AS pos, toUInt8({_BLOCK}) AS kind, mask, toInt64(0) AS opens,
                toInt64(0) AS closes, toUInt64(0) AS read, toUInt64(0) AS stored, toUInt64(0) AS others,
                toUInt64(0) AS lost, toDateTime64(0, 3, 'UTC') AS written_at
            FROM ({self.masks(f"AND kafka_offset <= {end}")})
            UNION ALL
            SELECT partition, mark.1, mark.2, toUInt64(0), toInt64(first_offset), toInt64(last_offset), read, stored,
                duplicates + conflicts + invalid + expired, lost, written_at
            FROM ({self.lines(f"AND last_offset <= {self._end('partition')}")})
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
