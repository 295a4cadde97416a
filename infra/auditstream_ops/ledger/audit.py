"""The accounts: is every offset of the topic in exactly one batch, does each batch add up, and are its rows there?

What the checks rest on, and where they end:

- Nobody can know whether records lay before the first batch once the broker has deleted them.
- A batch written longer ago than the retention, and the day that an event may be ahead of the sink's clock,
  may lack any of its rows: none of them is younger. A younger batch may lack rows that were almost as old as
  the retention when they came, but the books do not know their times. The topic does: while it holds the
  batch, its records are read again. After that, missing rows are a fault.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from clickhouse_connect.driver.client import Client

from auditstream_ops.dead_letters.dead_letter import read_letters
from auditstream_ops.ledger.balance import PartitionAccount, against_table, against_topic
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
from auditstream_ops.ledger.recheck import READ_AT_MOST, Recheck, recheck
from auditstream_ops.ledger.topic_reader import Extent, TopicReader
from auditstream_schemas.errors import OperationError
from auditstream_sink import SinkSettings

__all__ = ["PartitionAccount", "TopicLedger", "accounts", "verify"]

_NO_ROWS = Rows(within=0, ahead=0, doubled=0)
_NO_EXTRA = Extra(findings=0, hollow=0, expired_since=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicLedger:
    """The books of one topic id.

    Attributes:
        topic_id: The id that the broker gave the topic when it was created.
        is_current: Whether it is the topic's id now; books of an earlier one are held against the table alone.
        partitions: Its partitions.
    """

    topic_id: UUID
    is_current: bool
    partitions: tuple[PartitionAccount, ...]

    @property
    def is_balanced(self) -> bool:
        """Whether there is no fault."""
        return not any(account.problems for account in self.partitions)


def accounts(client: Client, database: str, settings: SinkSettings) -> list[PartitionAccount]:
    """The accounts of the topic as it is now; a record that is not in the books yet is a fault.

    Blocks on ClickHouse and on the broker.

    Args:
        client: ClickHouse.
        database: A checked identifier.
        settings: The topic, its broker and its dead letters.

    Raises:
        OperationError: The broker, the topic or ClickHouse is not there.
    """
    with TopicReader(settings) as reader:
        topic_id = reader.topic_id()
        if topic_id is None:
            raise OperationError(f"there is no topic {settings.topic}; run `auditstream topics`")
        audit = _Audit(client, database, settings, reader)
        return audit.of_topic(topic_id, {}, complete=True, earlier=())


def verify(
    client: Client, database: str, settings: SinkSettings, *, topic_id: UUID | None = None, complete: bool = False
) -> list[TopicLedger]:
    """The accounts of every id that the topic has had, the oldest first, or of one of them.

    Blocks on ClickHouse and on the broker. A sink may run meanwhile.

    Args:
        client: ClickHouse.
        database: A checked identifier.
        settings: The topic, its broker and dead letters, and the group whose commits are held against the books.
        topic_id: The only id to look at.
        complete: Whether records that are not in the books yet are a fault.

    Raises:
        OperationError: The broker or ClickHouse is not there; or neither the topic is nor books of it are.
    """
    known = topic_ids(client, database, settings.topic)
    with TopicReader(settings, group=settings.group) as reader:
        now = reader.topic_id()
        wanted = known if now is None or now in known else [*known, now]
        if topic_id is not None:
            wanted = [each for each in wanted if each == topic_id]
        if not wanted:
            which = f" of id {topic_id}" if topic_id else ""
            raise OperationError(f"there is no topic {settings.topic}{which}, and there are no books of one")
        audit = _Audit(client, database, settings, reader)
        found = []
        for each in wanted:
            if each == now:
                # Asked for before the books are: a sink that runs moves the books first, then its commits.
                committed = reader.committed()
                partitions = audit.of_topic(each, committed, complete=complete, earlier=[i for i in known if i != now])
            else:
                partitions = audit.of_past(each)
            found.append(TopicLedger(topic_id=each, is_current=each == now, partitions=tuple(partitions)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """What ClickHouse says of the books of one topic id, each by partition."""

    totals: Mapping[int, PartitionTotals]
    rows: Mapping[int, Rows]
    findings: Mapping[int, Sequence[Finding]]
    extra: Mapping[int, Extra]
    losses: Mapping[int, Sequence[Loss]]
    rivals: Mapping[int, Collection[int]]

    @property
    def partitions(self) -> set[int]:
        return {*self.totals, *self.rows}

    def account(
        self, partition: int, looks: Mapping[int, Recheck], others: Collection[int] = frozenset()
    ) -> PartitionAccount:
        """One partition's.

        Args:
            partition: Which.
            looks: What the topic says of its lines, by first offset.
            others: Offsets of this partition from which the table has events of lines that lack rows.
        """
        lines = self.findings.get(partition, ())
        return against_table(
            self.totals.get(partition) or _none_yet(partition),
            self.rows.get(partition, _NO_ROWS),
            [(line, looks.get(line.first_offset)) for line in lines],
            self.extra.get(partition, _NO_EXTRA),
            self.losses.get(partition, ()),
            others={*others, *self.rivals.get(partition, ())},
        )


class _Audit:
    """Asks ClickHouse and the topic, and holds one against the other."""

    def __init__(self, client: Client, database: str, settings: SinkSettings, reader: TopicReader) -> None:
        self._client = client
        self._database = database
        self._settings = settings
        self._reader = reader
        self._may_read = READ_AT_MOST

    def of_past(self, topic_id: UUID) -> list[PartitionAccount]:
        """The accounts of an id that the topic had once."""
        table = self._table(topic_id)
        return [table.account(partition, {}) for partition in sorted(table.partitions)]

    def of_topic(
        self, topic_id: UUID, committed: Mapping[int, int], *, complete: bool, earlier: Sequence[UUID]
    ) -> list[PartitionAccount]:
        """The accounts of the id that the topic has."""
        earlier_ends = self._ends(earlier)
        table = self._table(topic_id)
        extents = self._reader.extents({each.partition: each.last_offset + 1 for each in table.totals.values()})
        looks = self._all_looks(topic_id, table, extents)
        found = []
        for partition in sorted({*table.partitions, *extents}):
            extent = extents.get(partition)
            others = {offset for look in looks.values() for offset in look.elsewhere.get(partition, ())}
            mine = {first: look for (of, first), look in looks.items() if of == partition}
            account = table.account(partition, mine, others)
            if extent is not None:
                account = against_topic(
                    account,
                    extent,
                    committed.get(partition),
                    head_records=self._head(account, extent),
                    earlier_end=earlier_ends.get(partition, 0),
                    complete=complete,
                )
            found.append(account)
        return found

    def _ends(self, topic_ids: Sequence[UUID]) -> dict[int, int]:
        """Where books end, the farthest of these ids, by partition."""
        ends: dict[int, int] = {}
        for topic_id in topic_ids:
            for partition, totals in self._books(topic_id).totals().items():
                ends[partition] = max(ends.get(partition, 0), totals.last_offset + 1)
        return ends

    def _books(self, topic_id: UUID) -> LedgerReader:
        return LedgerReader(self._client, self._database, self._settings.topic, topic_id)

    def _table(self, topic_id: UUID) -> _Table:
        books = self._books(topic_id)
        totals = books.totals()
        rows = books.rows()
        findings = books.findings() if totals else {}
        is_all_told = all(
            each.stored == rows.get(each.partition, _NO_ROWS).within
            and len(findings.get(each.partition, ())) < LISTED_AT_MOST
            for each in totals.values()
        )
        losses = books.losses() if any(each.lost for each in totals.values()) else {}
        extra = {} if is_all_told else books.extra()
        surplus = [line for lines in findings.values() for line in lines if line.rows > line.stored]
        rivals = books.rivals(surplus) if surplus else {}
        return _Table(totals=totals, rows=rows, findings=findings, extra=extra, losses=losses, rivals=rivals)

    def _refused(self, topic_id: UUID) -> set[tuple[int, int]]:
        """Places of the topic's records that are among the dead letters."""
        return {
            (letter.partition, letter.offset)
            for letter in read_letters(self._settings)
            if letter.topic_id == str(topic_id)
        }

    def _all_looks(
        self, topic_id: UUID, table: _Table, extents: Mapping[int, Extent]
    ) -> dict[tuple[int, int], Recheck]:
        """What the topic says of doubtful lines, by partition and first offset."""
        refused: set[tuple[int, int]] | None = None
        looks = {}
        for partition, lines in table.findings.items():
            extent = extents.get(partition)
            for line in lines:
                if not (line.is_hollow or line.lacks_rows):
                    continue
                if extent is None or line.last_offset < extent.low or line.offsets > self._may_read:
                    continue
                if refused is None:
                    refused = self._refused(topic_id)
                self._may_read -= line.offsets
                looks[partition, line.first_offset] = recheck(
                    self._client, self._database, self._reader, topic_id, line, low=extent.low, refused=refused
                )
        return looks

    def _head(self, account: PartitionAccount, extent: Extent) -> int:
        """Whether the topic still holds a record from before the books begin: one is enough to tell."""
        if not account.batches or extent.low >= account.first_offset:
            return 0
        return int(any(True for _ in self._reader.records(account.partition, extent.low, account.first_offset - 1)))


def _none_yet(partition: int) -> PartitionTotals:
    return PartitionTotals(partition=partition, first_offset=0, last_offset=-1)
