"""Whether the ledger of one partition balances: the rules, and the sentences of the report. Queries nothing."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace

from auditstream_ops.ledger.ledger_reader import Extra, Finding, Loss, PartitionTotals, Rows
from auditstream_ops.ledger.recheck import Recheck
from auditstream_ops.ledger.topic_reader import Extent

_LOST_SHOWN = 3
_EXPLANATIONS = frozenset({"transactions", "no_record", "elsewhere", "late"})
_NOT_READ = "the topic does not have these records any more, or this run did not read them again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A sentence about a range of offsets: a fault, or the explanation of a batch that only looks wrong.

    Attributes:
        kind: Of a fault: ``gap`` (offsets in no batch), ``overlap`` (in two), ``counts`` (a line does not add up),
            ``range`` (a line's offsets and records do not agree), ``missing`` or ``extra`` (rows of a batch),
            ``stray`` (rows before the first line), ``doubled`` (rows of one offset), ``commit`` (the group's commit
            is ahead of the ledger), ``gone`` (deleted before a sink read it), ``lost`` (accepted as lost, but still
            on the topic), ``beyond`` (the topic ends before the ledger), ``unread`` (not in the ledger yet).
            Of an explanation: ``transactions`` (offsets without a record, and the topic confirms it), ``no_record``
            (the same, but the records cannot be read again), ``elsewhere`` (rows are past the retention, or
            visible from another delivery), ``late`` (the row of another delivery is visible from here).
    """

    kind: str
    first_offset: int
    last_offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionCheck(PartitionTotals):
    """The sums of one partition's ledger, compared with the table and the topic.

    ``last_offset`` is one less than ``first_offset`` while the partition has no ledger line.

    Attributes:
        rows: Rows of these offsets that readers see in the event log.
        rows_ahead: Rows beyond the end of the ledger. Their batch is in flight, or will be read again.
        expired_since: Rows that the retention has deleted since they were stored.
        low: First offset that the topic still has; None for an earlier id of the topic.
        end: One past the last record of the topic; None for an earlier id of the topic.
        committed: The next offset that the group committed; None if it was not read, or there is none.
        lag: Offsets of the topic that are not in the ledger yet; None for an earlier id of the topic.
        faults: What does not balance; empty if the ledger balances.
        more_faults: Faulty batches beyond those listed.
        notes: Sentences that are no faults; batches of one kind share a sentence.
        losses: Offsets that a person accepted as lost, with name and reason.
    """

    rows: int = 0
    rows_ahead: int = 0
    expired_since: int = 0
    low: int | None = None
    end: int | None = None
    committed: int | None = None
    lag: int | None = None
    faults: tuple[Remark, ...] = ()
    more_faults: int = 0
    notes: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()

    @property
    def next_offset(self) -> int:
        """One past the last offset in the ledger."""
        return self.last_offset + 1

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not balance, as sentences."""
        more = (f"{self.more_faults} more batches do not balance",) if self.more_faults else ()
        return (*(fault.text for fault in self.faults), *more)


def compare_with_table(
    totals: PartitionTotals,
    rows: Rows,
    findings: Sequence[tuple[Finding, Recheck | None]],
    extra: Extra,
    losses: Sequence[Loss] = (),
    *,
    others: Collection[int] = frozenset(),
) -> PartitionCheck:
    """Compare the ledger with the event log.

    Args:
        totals: The sums of the ledger.
        rows: The rows of the event log.
        findings: Lines that may be wrong, each with its recheck if there was one.
        extra: The number of lines beyond the listed findings.
        losses: Offsets that a person entered as lost.
        others: Offsets whose row is the event of another line that lacks a row, and offsets whose id the table also
            has with other content.
    """
    remarks = [
        remark
        for line, done in findings
        for remark in (_sequence(line), *_sums(line), _records(line, done), _rows(line, done, others))
        if remark is not None
    ]
    faults = [remark for remark in remarks if remark.kind not in _EXPLANATIONS]
    explained = [remark for remark in remarks if remark.kind in _EXPLANATIONS]
    first, last = totals.first_offset, totals.last_offset
    if rows.doubled:
        faults.append(_remark("doubled", first, last, f": {rows.doubled} rows too many, of offsets with another row"))
    notes = [
        f"offsets {loss.first_offset} to {loss.last_offset} are lost: the broker deleted them before any sink read "
        f"them; accepted by {loss.by} at {loss.at}: {loss.reason}"
        for loss in losses
    ]
    notes += _shared_sentences(explained)
    unlisted = extra.hollow - sum(not line.is_fault for line, _ in findings)
    if unlisted > 0:
        notes.append(f"{unlisted} more batches have offsets without a record; their records were not read again")
    if extra.expired_since:
        notes.append(f"the retention has deleted {extra.expired_since} rows")
    if rows.ahead:
        notes.append(f"{rows.ahead} rows are beyond the end of the ledger: their batch is not in the ledger yet")
    return PartitionCheck(
        **asdict(totals),
        rows=rows.within,
        rows_ahead=rows.ahead,
        expired_since=extra.expired_since,
        faults=tuple(faults),
        more_faults=max(0, extra.findings - sum(line.is_fault for line, _ in findings)),
        notes=tuple(notes),
        losses=tuple(losses),
    )


def compare_with_topic(
    check: PartitionCheck,
    extent: Extent,
    committed: int | None,
    *,
    has_head_records: bool,
    earlier_end: int,
    complete: bool,
) -> PartitionCheck:
    """Compare the ledger with the topic, after `compare_with_table`.

    Args:
        check: The result of `compare_with_table`.
        extent: The offsets that the topic has.
        committed: The next offset of the group.
        has_head_records: Whether the topic still has a record from before the first ledger line.
        earlier_end: One past the last offset in the ledgers of earlier ids of the topic; 0 if there are none.
        complete: Whether a record that is not in the ledger yet is a fault.
    """
    if not check.batches:
        check = replace(check, first_offset=extent.low, last_offset=extent.low - 1)
    first, beyond = check.first_offset, check.next_offset
    faults: list[Remark] = []
    notes: list[str] = []
    if has_head_records:
        text = " are in no batch: the topic still has their records, but the ledger begins later"
        faults.append(_remark("gap", extent.low, first - 1, text))
    elif first > 0:
        notes.append(
            f"the ledger begins at offset {first}: nothing shows any more whether there were records before it"
        )
    if extent.low > beyond:
        text = " were deleted by the broker before any sink read them; see `auditstream accept-loss`"
        faults.append(_remark("gone", beyond, extent.low - 1, text))
    text = f" are accepted as lost, but the topic begins at {extent.low}"
    faults += [
        _remark("lost", loss.first_offset, loss.last_offset, text)
        for loss in check.losses
        if loss.last_offset >= extent.low
    ]
    if extent.end < beyond:
        faults.append(_remark("beyond", extent.end, beyond - 1, " are in the ledger, but the topic ends before them"))
    if committed is not None and beyond < committed <= earlier_end:
        notes.append(
            f"the group's commit of {committed} belongs to an earlier topic of that name; sinks follow the ledger"
        )
    elif committed is not None and committed > beyond:
        faults.append(_remark("commit", beyond, committed - 1, " are committed by the group, but not in the ledger"))
    if extent.end > beyond and complete:
        faults.append(_remark("unread", beyond, extent.end - 1, " are not in the ledger yet"))
    return replace(
        check,
        low=extent.low,
        end=extent.end,
        committed=committed,
        lag=max(0, extent.end - beyond),
        faults=(*check.faults, *faults),
        notes=(*check.notes, *notes),
    )


def _sequence(line: Finding) -> Remark | None:
    """Whether a line begins where the lines before it end."""
    first, reached = line.first_offset, line.reached
    if reached is None:
        if not line.stray:
            return None
        return _remark("stray", 0, first - 1, f": {line.stray} rows, but the ledger begins at offset {first}")
    if reached + 1 < first:
        but = f", but {line.stray} of them have rows" if line.stray else ""
        return _remark("gap", reached + 1, first - 1, f" are in no batch{but}")
    if reached >= first:
        return _remark("overlap", first, min(reached, line.last_offset), " are in two batches")
    return None


def _sums(line: Finding) -> list[Remark]:
    """Whether the counts of a line add up."""
    remarks = []
    total = line.stored + line.others
    if line.read != total:
        remarks.append(_of_line(line, "counts", f"read {line.read}, but the counts add up to {total}"))
    if line.last_offset < line.first_offset:
        remarks.append(_of_line(line, "range", "the batch ends before it begins"))
    elif line.read + line.lost > line.offsets:
        lost = f" and {line.lost} lost" if line.lost else ""
        remarks.append(_of_line(line, "range", f"{line.read} records read{lost} from {line.offsets} offsets"))
    return remarks


def _records(line: Finding, done: Recheck | None) -> Remark | None:
    """Offsets without a record are transaction markers, unless the topic has records there."""
    if not line.is_hollow:
        return None
    text = f"{line.offsets - line.read - line.lost} of them held no record"
    if done is None or not done.is_whole:
        return _of_line(line, "no_record", f"{text}, according to the ledger; {_NOT_READ}")
    if done.records > line.read:
        return _of_line(line, "range", f"read {line.read}, but the topic has {done.records} records there")
    return _of_line(line, "transactions", f"{text}: a producer used transactions")


def _rows(line: Finding, done: Recheck | None, others: Collection[int]) -> Remark | None:
    """Whether the table has the rows of a line."""
    text = f"stored {line.stored}, but the table has {line.rows} rows"
    if line.rows > line.stored:
        return _surplus(line, text, others)
    if line.rows == line.stored or line.is_past:
        return None
    if not line.lacks_rows:
        cause = f"{line.elsewhere} are visible from other offsets, which another sink stored at the same time"
        return _of_line(line, "elsewhere", f"{text}: {cause}")
    if done is None or not done.is_whole:
        return _of_line(line, "missing", f"{text}; {_NOT_READ}")
    if done.lost:
        ids = ", ".join(done.lost[:_LOST_SHOWN]) + (", ..." if len(done.lost) > _LOST_SHOWN else "")
        return _of_line(line, "missing", f"{text}; {len(done.lost)} events are neither stored nor refused: {ids}")
    cause = f"{done.aged} are past the retention, the others are visible from another delivery"
    return _of_line(line, "elsewhere", f"{text}: {cause}")


def _surplus(line: Finding, text: str, others: Collection[int]) -> Remark:
    # The sink may have ended before it noted its copies. Then another line lacks a row, and the table has that event
    # from here.
    lacking = sum(line.first_offset <= offset <= line.last_offset for offset in others)
    if line.rows - line.stored > line.noted + lacking:
        return _of_line(line, "extra", text)
    cause = "an insert arrived late; the ledger counts its events as duplicates of other offsets, or as conflicts"
    return _of_line(line, "late", f"{text}: {cause}")


def _shared_sentences(explained: Sequence[Remark]) -> list[str]:
    """One sentence for each kind: on a topic that is written in transactions, every batch has an explanation."""
    sentences = []
    for kind in dict.fromkeys(remark.kind for remark in explained):
        first, *others = [remark for remark in explained if remark.kind == kind]
        more = f"; likewise {len(others)} more batches, up to offset {others[-1].last_offset}" if others else ""
        sentences.append(f"{first.text}{more}")
    return sentences


def _of_line(line: Finding, kind: str, text: str) -> Remark:
    return _remark(kind, line.first_offset, line.last_offset, f": {text}")


def _remark(kind: str, first: int, last: int, text: str) -> Remark:
    return Remark(kind=kind, first_offset=first, last_offset=last, text=f"offsets {first} to {last}{text}")
