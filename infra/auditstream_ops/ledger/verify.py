"""Compares the ledger with the event log and with the topic: offsets without a gap, sums, rows.

Limits of these checks:

- Once the broker has deleted records, nothing shows whether there were records before the first ledger line.
- If a batch was written longer ago than the retention and a day, any of its rows may be deleted. An event may be a day
  ahead of the sink's clock, so the day is added.
- Of a younger batch, rows of events that were almost as old as the retention on arrival may be deleted. The ledger has
  no times of events, so the batch's records are read again while the topic has them. Afterwards, missing rows are a
  fault.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from clickhouse_connect.driver.client import Client

from auditstream_ops.dead_letters.dead_letter import read_dead_letters
from auditstream_ops.ledger.ledger_reader import (
    LISTED_AT_MOST,
    Extra,
    Finding,
    LedgerReader,
    Loss,
    PartitionTotals,
    Rows,
    topic_ids,
)
from auditstream_ops.ledger.partition_check import PartitionCheck, compare_with_table, compare_with_topic
from auditstream_ops.ledger.recheck import READ_AT_MOST, Recheck, recheck
from auditstream_ops.ledger.topic_reader import Extent, TopicReader
from auditstream_schemas.errors import OperationError
from auditstream_sink import SinkSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicCheck:
    """The checks of one topic id, which the topic has now or had before it was created again.

    The ledger of an earlier id is compared with the table alone.
    """

    topic_id: UUID
    is_current: bool
    partitions: tuple[PartitionCheck, ...]

    @property
    def is_balanced(self) -> bool:
        """Whether no partition has a fault."""
        return not any(check.problems for check in self.partitions)


def check_topic(client: Client, database: str, settings: SinkSettings) -> list[PartitionCheck]:
    """Check the topic as it is now: a record that is not in the ledger yet is a fault. Blocks on ClickHouse and broker.

    Raises:
        OperationError: The topic does not exist, or the broker or ClickHouse is not reachable.
    """
    with TopicReader(settings) as reader:
        verifier = _Verifier(client, database, settings, reader)
        return verifier.check_current(reader.required_topic_id(), {}, complete=True, earlier_ids=())


def verify(
    client: Client, database: str, settings: SinkSettings, *, topic_id: UUID | None = None, complete: bool = False
) -> list[TopicCheck]:
    """Check every id that the topic has had, the oldest first, or one of them. A sink may run meanwhile.

    Blocks on ClickHouse and on the broker. With ``complete``, a record that is not in the ledger yet is a fault.

    Raises:
        OperationError: The broker or ClickHouse is not reachable, or there is neither a topic nor a ledger of one.
    """
    ledger_ids = topic_ids(client, database, settings.topic)
    with TopicReader(settings, group=settings.group) as reader:
        current = reader.topic_id()
        ids = ledger_ids if current is None or current in ledger_ids else [*ledger_ids, current]
        if topic_id is not None:
            ids = [known for known in ids if known == topic_id]
        if not ids:
            which = f" of id {topic_id}" if topic_id else ""
            raise OperationError(f"there is no topic {settings.topic}{which}, and no ledger of one")
        verifier = _Verifier(client, database, settings, reader)
        checks = []
        for checked_id in ids:
            if checked_id == current:
                # Read before the ledger is: a running sink writes its ledger lines first, then commits.
                committed = reader.committed()
                earlier_ids = [known for known in ledger_ids if known != current]
                partitions = verifier.check_current(checked_id, committed, complete=complete, earlier_ids=earlier_ids)
            else:
                partitions = verifier.check_earlier(checked_id)
            checks.append(
                TopicCheck(topic_id=checked_id, is_current=checked_id == current, partitions=tuple(partitions))
            )
    return checks


@dataclass(frozen=True, slots=True, kw_only=True)
class _QueryResults:
    """The answers of ClickHouse about the ledger of one topic id, by partition."""

    totals: Mapping[int, PartitionTotals]
    rows: Mapping[int, Rows]
    findings: Mapping[int, Sequence[Finding]]
    extra: Mapping[int, Extra]
    losses: Mapping[int, Sequence[Loss]]
    rivals: Mapping[int, Collection[int]]

    def check(
        self, partition: int, rechecks: Mapping[int, Recheck], others: Collection[int] = frozenset()
    ) -> PartitionCheck:
        return compare_with_table(
            self.totals.get(partition) or PartitionTotals(partition=partition, first_offset=0, last_offset=-1),
            self.rows.get(partition, Rows()),
            [(line, rechecks.get(line.first_offset)) for line in self.findings.get(partition, ())],
            self.extra.get(partition, Extra()),
            self.losses.get(partition, ()),
            others={*others, *self.rivals.get(partition, ())},
        )


class _Verifier:
    """Queries ClickHouse and reads the topic for the checks of one topic name."""

    def __init__(self, client: Client, database: str, settings: SinkSettings, reader: TopicReader) -> None:
        self._client = client
        self._database = database
        self._settings = settings
        self._reader = reader
        self._may_read = READ_AT_MOST

    def check_earlier(self, topic_id: UUID) -> list[PartitionCheck]:
        """Check an id that the topic had before it was created anew."""
        results = self._query(topic_id)
        return [results.check(partition, {}) for partition in sorted({*results.totals, *results.rows})]

    def check_current(
        self, topic_id: UUID, committed: Mapping[int, int], *, complete: bool, earlier_ids: Sequence[UUID]
    ) -> list[PartitionCheck]:
        """Check the id that the topic has now."""
        earlier_ends = self._next_offsets(earlier_ids)
        results = self._query(topic_id)
        extents = self._reader.extents({totals.partition: totals.last_offset + 1 for totals in results.totals.values()})
        rechecks = self._rechecks(topic_id, results, extents)
        checks = []
        for partition in sorted({*results.totals, *results.rows, *extents}):
            others = {offset for done in rechecks.values() for offset in done.elsewhere.get(partition, ())}
            own = {first: done for (checked, first), done in rechecks.items() if checked == partition}
            check = results.check(partition, own, others)
            extent = extents.get(partition)
            if extent is not None:
                check = compare_with_topic(
                    check,
                    extent,
                    committed.get(partition),
                    has_head_records=self._has_head_records(check, extent),
                    earlier_end=earlier_ends.get(partition, 0),
                    complete=complete,
                )
            checks.append(check)
        return checks

    def _ledger(self, topic_id: UUID) -> LedgerReader:
        return LedgerReader(self._client, self._database, self._settings.topic, topic_id)

    def _next_offsets(self, ids: Sequence[UUID]) -> dict[int, int]:
        """One past the last offset in the ledgers of these ids, the largest of them, by partition."""
        ends: dict[int, int] = {}
        for topic_id in ids:
            for partition, totals in self._ledger(topic_id).totals().items():
                ends[partition] = max(ends.get(partition, 0), totals.last_offset + 1)
        return ends

    def _query(self, topic_id: UUID) -> _QueryResults:
        ledger = self._ledger(topic_id)
        totals = ledger.totals()
        rows = ledger.rows()
        findings = ledger.findings() if totals else {}
        are_all_listed = all(
            ledger_totals.stored == rows.get(partition, Rows()).within
            and len(findings.get(partition, ())) < LISTED_AT_MOST
            for partition, ledger_totals in totals.items()
        )
        surplus = [line for lines in findings.values() for line in lines if line.rows > line.stored]
        return _QueryResults(
            totals=totals,
            rows=rows,
            findings=findings,
            extra={} if are_all_listed else ledger.extra(),
            losses=ledger.losses() if any(ledger_totals.lost for ledger_totals in totals.values()) else {},
            rivals=ledger.rivals(surplus) if surplus else {},
        )

    def _rechecks(
        self, topic_id: UUID, results: _QueryResults, extents: Mapping[int, Extent]
    ) -> dict[tuple[int, int], Recheck]:
        """Read the records of doubtful ledger lines again; by partition and first offset."""
        refused: set[tuple[int, int]] | None = None
        rechecks = {}
        for partition, lines in results.findings.items():
            extent = extents.get(partition)
            for line in lines:
                if not (line.is_hollow or line.lacks_rows):
                    continue
                if extent is None or line.last_offset < extent.low or line.offsets > self._may_read:
                    continue
                if refused is None:
                    refused = {
                        (dead_letter.partition, dead_letter.offset)
                        for dead_letter in read_dead_letters(self._settings)
                        if dead_letter.topic_id == str(topic_id)
                    }
                self._may_read -= line.offsets
                rechecks[partition, line.first_offset] = recheck(
                    self._client, self._database, self._reader, topic_id, line, low=extent.low, refused=refused
                )
        return rechecks

    def _has_head_records(self, check: PartitionCheck, extent: Extent) -> bool:
        """Whether the topic still has a record from before the first ledger line."""
        if not check.batches or extent.low >= check.first_offset:
            return False
        return any(True for _ in self._reader.records(check.partition, extent.low, check.first_offset - 1))
