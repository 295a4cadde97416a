"""What balances and what does not: the sentences about one partition's books, from figures alone."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from auditstream_ops.ledger.ledger_reader import Extra, Finding, Loss, PartitionTotals, Rows
from auditstream_ops.ledger.recheck import Recheck
from auditstream_ops.ledger.topic_reader import Extent

_LOST_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceFault:
    """Something that does not balance.

    Attributes:
        kind: ``gap`` (offsets in no batch), ``overlap`` (in two), ``counts`` (a line does not add up),
            ``span`` (a line's offsets and records do not agree), ``missing`` or ``extra`` (rows of a batch),
            ``stray`` (rows before the books), ``doubled`` (rows of one offset), ``commit`` (the group is ahead
            of the books), ``gone`` (deleted before a sink read it), ``lost`` (accepted as lost, but not gone),
            ``beyond`` (the topic ends before the books), ``unread`` (not in the books yet).
        first_offset: First offset concerned.
        last_offset: Last offset concerned, inclusive.
        text: A sentence that says what is wrong.
    """

    kind: str
    first_offset: int
    last_offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """A batch that looks wrong, and is not.

    Attributes:
        kind: ``transactions`` (offsets held no record, and the topic confirms it), ``hollow`` (it cannot be
            asked any more), ``elsewhere`` (rows are past the retention, or shown from another delivery),
            ``late`` (the other delivery's row is shown from here).
        first_offset: First offset of the batch.
        last_offset: Its last offset, inclusive.
        text: A sentence that says why.
    """

    kind: str
    first_offset: int
    last_offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionAccount:
    """One partition's books, added up and held against table and topic.

    Attributes:
        partition: Kafka partition.
        first_offset: Where the books begin.
        last_offset: Where they end, inclusive; one less than ``first_offset`` when there are none yet.
        batches: Ledger lines.
        read: Records read.
        stored: New rows.
        duplicates: Second deliveries of an id.
        conflicts: Other content under a known id.
        invalid: Broken records.
        expired: Older than the retention on arrival.
        lost: Offsets that a person accepted as deleted before any sink read them.
        rows: Rows that the event log holds of these offsets, seen through the view.
        rows_ahead: Rows beyond the end of the books: of a batch in flight, or one that will be taken again.
        expired_since: Rows of batches that are past the retention, and gone.
        low: First offset that the topic still holds; None for books of an earlier topic.
        end: One past the last record of the topic; None for books of an earlier topic.
        committed: The next offset that the group committed; None if it was not asked for, or committed none.
        faults: What does not balance; empty when all is well.
        more_faults: Faulty batches beyond those listed.
        notes: What is worth knowing, and no fault; batches of one kind in one sentence.
        explained: The batches that the notes put together.
        losses: What was accepted as lost, by whom and why.
    """

    partition: int
    first_offset: int
    last_offset: int
    batches: int
    read: int
    stored: int
    duplicates: int
    conflicts: int
    invalid: int
    expired: int
    lost: int = 0
    rows: int = 0
    rows_ahead: int = 0
    expired_since: int = 0
    low: int | None = None
    end: int | None = None
    committed: int | None = None
    faults: tuple[BalanceFault, ...] = ()
    more_faults: int = 0
    notes: tuple[str, ...] = ()
    explained: tuple[Explained, ...] = ()
    losses: tuple[Loss, ...] = ()

    @property
    def next_offset(self) -> int:
        """Where the books go on: one past the last offset in them."""
        return self.last_offset + 1

    @property
    def lag(self) -> int | None:
        """Offsets of the topic that are not in the books yet."""
        return None if self.end is None else max(0, self.end - self.next_offset)

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not balance, as sentences."""
        more = (f"{self.more_faults} more batches do not balance",) if self.more_faults else ()
        return (*(fault.text for fault in self.faults), *more)


def against_table(
    totals: PartitionTotals,
    rows: Rows,
    findings: Sequence[tuple[Finding, Recheck | None]],
    extra: Extra,
    losses: Sequence[Loss] = (),
    *,
    others: Collection[int] = frozenset(),
) -> PartitionAccount:
    """Books held against the event log.

    Args:
        totals: The books, added up.
        rows: What the event log has of them.
        findings: Lines that may be wrong, each with what the topic says of it, if it was asked.
        extra: What the list of findings leaves out.
        losses: What a person entered as lost.
        others: Offsets from which the table has events of other lines, ones that lack rows; and offsets whose
            id the table has with other content, too.
    """
    faults: list[BalanceFault] = []
    notes = [
        f"offsets {loss.first_offset} to {loss.last_offset} are lost: deleted by the broker before any sink read them; "
        f"accepted by {loss.by} at {loss.at}: {loss.reason}"
        for loss in losses
    ]
    explained: list[Explained] = []
    for line, look in findings:
        of_line = [*_offsets(line), *_sums(line)]
        for found in (*of_line, _hollow(line, look), _rows(line, look, others)):
            if isinstance(found, BalanceFault):
                faults.append(found)
            elif found:
                explained.append(found)
    notes += _together(explained)
    first, last = totals.first_offset, totals.last_offset
    if rows.doubled:
        text = f"offsets {first} to {last}: {rows.doubled} rows too many, of offsets that have another one"
        faults.append(BalanceFault(kind="doubled", first_offset=first, last_offset=last, text=text))
    hollow = extra.hollow - sum(not line.is_fault for line, _ in findings)
    if hollow > 0:
        notes.append(f"{hollow} more batches with offsets that held no record, not looked into")
    if extra.expired_since:
        notes.append(f"{extra.expired_since} rows are past the retention, and gone")
    if rows.ahead:
        notes.append(f"{rows.ahead} rows lie beyond the end of the books: their batch is not accounted for yet")
    return PartitionAccount(
        partition=totals.partition,
        first_offset=first,
        last_offset=last,
        batches=totals.batches,
        read=totals.read,
        stored=totals.stored,
        duplicates=totals.duplicates,
        conflicts=totals.conflicts,
        invalid=totals.invalid,
        expired=totals.expired,
        lost=totals.lost,
        rows=rows.within,
        rows_ahead=rows.ahead,
        expired_since=extra.expired_since,
        faults=tuple(faults),
        more_faults=max(0, extra.findings - sum(line.is_fault for line, _ in findings)),
        notes=tuple(notes),
        explained=tuple(explained),
        losses=tuple(losses),
    )


def against_topic(
    account: PartitionAccount,
    extent: Extent,
    committed: int | None,
    *,
    head_records: int,
    earlier_end: int,
    complete: bool,
) -> PartitionAccount:
    """An account held against the topic, too.

    Args:
        account: Books held against the event log; without batches if there are none.
        extent: What the topic holds.
        committed: The next offset of the group.
        head_records: Records that the topic still holds from before the books begin.
        earlier_end: Where the books of earlier topics of that name ended, the farthest of them; 0 if there are none.
        complete: Whether records that are not in the books yet are a fault.
    """
    if not account.batches:
        account = replace(account, first_offset=extent.low, last_offset=extent.low - 1)
    first, beyond = account.first_offset, account.next_offset
    faults: list[BalanceFault] = []
    notes: list[str] = []

    def fault(kind: str, begin: int, end: int, text: str) -> None:
        faults.append(
            BalanceFault(kind=kind, first_offset=begin, last_offset=end, text=f"offsets {begin} to {end} {text}")
        )

    if head_records:
        fault("gap", extent.low, first - 1, "are in no batch: the topic holds them, and the books begin later")
    elif first > 0:
        notes.append(f"the books begin at offset {first}: whether records lay before it cannot be known any more")
    if extent.low > beyond:
        text = "were deleted by the broker before any sink read them; see `auditstream accept-loss`"
        fault("gone", beyond, extent.low - 1, text)
    for loss in account.losses:
        if loss.last_offset >= extent.low:
            text = f"are accepted as lost, but the topic begins at {extent.low}"
            fault("lost", loss.first_offset, loss.last_offset, text)
    if extent.end < beyond:
        fault("beyond", extent.end, beyond - 1, "are in the books, but the topic ends before them")
    if committed is not None and beyond < committed <= earlier_end:
        notes.append(f"the group's commit of {committed} is of an earlier topic of that name; sinks go by the books")
    elif committed is not None and committed > beyond:
        fault("commit", beyond, committed - 1, "are committed by the group, but not in the books")
    if extent.end > beyond and complete:
        fault("unread", beyond, extent.end - 1, "are not in the books yet")
    return replace(
        account,
        low=extent.low,
        end=extent.end,
        committed=committed,
        faults=(*account.faults, *faults),
        notes=(*account.notes, *notes),
    )


def _offsets(line: Finding) -> list[BalanceFault]:
    """How a line follows the ones before it."""
    faults = []
    first, reached = line.first_offset, line.reached
    if reached is None:
        if line.stray:
            text = f"{line.stray} rows are of offsets before {first}, where the books begin"
            faults.append(BalanceFault(kind="stray", first_offset=0, last_offset=first - 1, text=text))
    elif reached + 1 < first:
        but = f", but {line.stray} of them have rows" if line.stray else ""
        text = f"offsets {reached + 1} to {first - 1} are in no batch{but}"
        faults.append(BalanceFault(kind="gap", first_offset=reached + 1, last_offset=first - 1, text=text))
    elif reached >= first:
        last = min(reached, line.last_offset)
        text = f"offsets {first} to {last} are in two batches"
        faults.append(BalanceFault(kind="overlap", first_offset=first, last_offset=last, text=text))
    return faults


def _sums(line: Finding) -> list[BalanceFault]:
    """Whether a line adds up in itself."""
    faults = []
    if line.read != line.stored + line.others:
        faults.append(_of(line, "counts", f"read {line.read}, accounted for {line.stored + line.others}"))
    if line.last_offset < line.first_offset:
        faults.append(_of(line, "span", "the batch ends before it begins"))
    elif line.read + line.lost > line.offsets:
        lost = f" and {line.lost} lost" if line.lost else ""
        faults.append(_of(line, "span", f"{line.read} records read{lost} from {line.offsets} offsets"))
    return faults


def _together(explained: Sequence[Explained]) -> list[str]:
    """One sentence a kind: every batch of a topic that is written in transactions has something to explain."""
    sentences = []
    for kind in dict.fromkeys(each.kind for each in explained):
        first, *others = [each for each in explained if each.kind == kind]
        more = f"; so in {len(others)} more batches, up to offset {others[-1].last_offset}" if others else ""
        sentences.append(f"{first.text}{more}")
    return sentences


def _hollow(line: Finding, look: Recheck | None) -> BalanceFault | Explained | None:
    """Offsets without a record: markers of a producer's transaction, unless the topic has records there."""
    if not line.is_hollow:
        return None
    held_none = f"{_range(line)}: {line.offsets - line.read - line.lost} of them held no record"
    if look is None or not look.is_whole:
        text = f"{held_none}, as the books have it; the topic was not or cannot be asked any more"
        return _explained(line, "hollow", text)
    if look.records > line.read:
        return _of(line, "span", f"read {line.read}, but the topic holds {look.records} records there")
    return _explained(line, "transactions", f"{held_none}: a producer used transactions")


def _rows(line: Finding, look: Recheck | None, others: Collection[int]) -> BalanceFault | Explained | None:
    """Whether a line's rows are there."""
    if line.rows > line.stored:
        return _surplus(line, others)
    if line.rows == line.stored or line.is_past:
        return None
    what = f"stored {line.stored}, but {line.rows} rows are there"
    if not line.lacks_rows:
        text = (
            f"{_range(line)}: {what}: {line.elsewhere} are shown from another place, which a sink took at the same time"
        )
        return _explained(line, "elsewhere", text)
    if look is None or not look.is_whole:
        return _of(line, "missing", f"{what}; the topic was not or cannot be asked any more")
    if look.lost:
        shown = ", ".join(look.lost[:_LOST_SHOWN]) + (", ..." if len(look.lost) > _LOST_SHOWN else "")
        return _of(line, "missing", f"{what}; nowhere to be found: {len(look.lost)} events: {shown}")
    text = f"{_range(line)}: {what}: {look.aged} are past the retention, the others are shown from another delivery"
    return _explained(line, "elsewhere", text)


def _surplus(line: Finding, others: Collection[int]) -> BalanceFault | Explained:
    """Why a line has more rows than it stored.

    A sink that noted nothing, because it was gone by then, leaves this: the other line lacks a row, its events
    are read from the topic again, and the table has one of them from here.
    """
    what = f"stored {line.stored}, but {line.rows} rows are there"
    lacking = sum(line.first_offset <= offset <= line.last_offset for offset in others)
    if line.rows - line.stored > line.noted + lacking:
        return _of(line, "extra", what)
    text = (
        f"{_range(line)}: {what}: an insert came late, of what the books have as second deliveries of other places, or "
        "as conflicts"
    )
    return _explained(line, "late", text)


def _of(line: Finding, kind: str, text: str) -> BalanceFault:
    first, last = line.first_offset, line.last_offset
    return BalanceFault(kind=kind, first_offset=first, last_offset=last, text=f"{_range(line)}: {text}")


def _explained(line: Finding, kind: str, text: str) -> Explained:
    return Explained(kind=kind, first_offset=line.first_offset, last_offset=line.last_offset, text=text)


def _range(line: Finding) -> str:
    return f"offsets {line.first_offset} to {line.last_offset}"
