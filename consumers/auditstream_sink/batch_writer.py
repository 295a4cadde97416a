"""A batch, from bytes in hand to a line in the books: stage, judge, insert, read back, account.

Every step may be taken again after any failure. What makes that safe: the stage is emptied before it is
filled, a row that this very offset stored is known by its coordinates, a dead letter carries its source
offset, and a ledger line written twice collapses.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar
from uuid import UUID

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from auditstream_schemas.codec import decode, decode_record
from auditstream_schemas.errors import AuditstreamError, InvalidEventError, SinkError, WireFormatError
from auditstream_sink.batch import Batch, OffsetRange, Record, Refused, SchemaGroup
from auditstream_sink.cancellation import BatchCancelledError, Cancellation
from auditstream_sink.clickhouse_writer import Classification, ClickHouseWriter, DataRefusedError, UnknownOutcomeError
from auditstream_sink.clock import Clock
from auditstream_sink.dead_letter_limit import DeadLetterLimit
from auditstream_sink.dead_letters import DeadLetters, DeadLettersUndeliveredError
from auditstream_sink.health import Health, part_at_fault
from auditstream_sink.metrics import Metrics
from auditstream_sink.statements import FAULTS
from auditstream_sink.trailing_bytes import alignment
from auditstream_storage.ledger import LedgerEnd, LedgerLine

_LOOK_AT_MOST = 2048
"""A refused container is halved down to this many records; these are looked at one by one to find the broken ones."""

_WAITER = "settlement"

_logger = logging.getLogger("auditstream.sink")

_T = TypeVar("_T")

_PARSERS = 2
"""Containers that ClickHouse parses at once, one thread each: parsing is the longest step."""

_SPLIT_FROM = 10_000
"""Records above which a lot is parsed as two containers; below, a second request costs more than it saves."""


class TakenOverError(AuditstreamError):
    """The books of a partition went on without this sink: another one owns it now."""


class BatchWriter:
    """Settles batches. Blocks until a batch is accounted for, however long ClickHouse is away.

    Has a stage, connections and a producer of its own: one that was given up in the middle of a statement
    shares none of these with the one that takes its place.

    Args:
        warehouse: ClickHouse.
        dead_letters: Where refused records go.
        topic_id: Asks the broker for the topic's id.
        clock: Gives the time that rows and lines carry.
        flood: Stops the sink when too much is refused.
        metrics: Where batches and steps are counted.
        health: Told when a batch waits.

    Attributes:
        given_up: Tells that the batch in hand is not wanted any more. What it stored stays, and is known by its
            coordinates to whoever reads these offsets next.
    """

    def __init__(
        self,
        warehouse: ClickHouseWriter,
        dead_letters: DeadLetters,
        topic_id: Callable[[], UUID],
        clock: Clock,
        *,
        flood: DeadLetterLimit,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self._warehouse = warehouse
        self._dead_letters = dead_letters
        self._topic_id = topic_id
        self._clock = clock
        self._flood = flood
        self._metrics = metrics
        self._health = health
        self.given_up = Cancellation()

    def close(self) -> None:
        """Drop the stage. Blocks on ClickHouse; no batch may be in hand."""
        try:
            self._warehouse.close()
        except UnknownOutcomeError as error:
            _logger.warning("the stage was left behind, a later sink removes it: %s", error)

    def settle(
        self, batch: Batch, topic_id: UUID, *, tails: dict[int, LedgerEnd], before: "Future[Any]"
    ) -> list[LedgerLine]:
        """Bring a batch into the books and return its lines, one a partition.

        Args:
            batch: What was read.
            topic_id: From which topic.
            tails: Where the books of each of its partitions end; the lines that are written move them.
            before: The batch before this one: it is settled before this one is judged.

        Raises:
            TakenOverError: Another sink accounted for these offsets meanwhile; drop the batch.
            AbandonedError: It was given up.
            SinkError: Too many records are refused, or the books are not as they were left.
        """
        judgement = Classification(counts={}, refused=())
        if batch.lots:
            judgement = self._persistently(lambda: self._store(batch, topic_id, before))
        # Left in the middle of a statement, this thread has a successor already.
        self.given_up.outlast(before)
        letters = [*batch.refused, *_letters(batch, judgement)]
        self._flood.check(batch.rows, letters)
        if letters:
            self._persistently(lambda: self._send(letters, topic_id))
        lines = [_line(partition, span, batch, judgement) for partition, span in sorted(batch.spans.items())]
        self._persistently(lambda: self._account(lines, topic_id, tails))
        self._flood.passed(batch.rows, letters)
        self._metrics.settled(lines, (letter.reason for letter in letters), opened=batch.opened)
        return lines

    def _persistently(self, action: Callable[[], _T]) -> _T:
        """Do it until its outcome is known; says so once when it begins to wait and once when it is over."""
        tries = Retrying(
            retry=retry_if_exception_type((UnknownOutcomeError, DeadLettersUndeliveredError)),
            wait=wait_exponential_jitter(multiplier=0.2, max=30),
            sleep=self.given_up.pause,
            before_sleep=self._wait,
            reraise=True,
        )
        try:
            result = tries(action)
        except BatchCancelledError:
            # Nobody knows whether it would go on: the successor says so.
            raise
        except BaseException:
            self._health.go_on(_WAITER)
            raise
        self._health.go_on(_WAITER)
        return result

    def _wait(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if error is not None:
            self._health.wait(_WAITER, part_at_fault(error), error)

    def _store(self, batch: Batch, topic_id: UUID, before: "Future[Any]") -> Classification:
        try:
            return self._try_to_store(batch, topic_id, before)
        except AuditstreamError:
            self._warehouse.leave_stage()
            raise

    def _try_to_store(self, batch: Batch, topic_id: UUID, before: "Future[Any]") -> Classification:
        with self._metrics.step("stage"):
            staged = self._stage(batch)
        self.given_up.outlast(before)
        now = self._clock.now()
        with self._metrics.step("judge"):
            judgement = self._warehouse.judge(now=now, topic_id=topic_id)
        with self._metrics.step("insert"):
            self._warehouse.insert(now=now, topic_id=topic_id)
        with self._metrics.step("read_back"):
            missing, still_staged = self._warehouse.read_back(topic_id=topic_id)
            if missing:
                raise UnknownOutcomeError(f"read back: {missing} inserted records are not there")
            if still_staged != staged:
                # An empty stage gives no verdicts, misses nothing, and proves nothing.
                raise UnknownOutcomeError("ClickHouse lost the stage")
        return judgement

    def _stage(self, batch: Batch) -> int:
        self._warehouse.clear_stage()
        expected = sum(self._stage_lot(batch, lot) for lot in list(batch.lots.values()))
        staged = self._warehouse.staged()
        if staged != expected:
            raise UnknownOutcomeError(f"staged {staged} of {expected} records")
        return staged

    def _stage_lot(self, batch: Batch, lot: SchemaGroup) -> int:
        """Stage a lot; broken records leave it for the refused ones of the batch. How many are staged."""
        everything = range(len(lot))
        pieces = _halves(everything) if len(lot) > _SPLIT_FROM else [everything]
        broken: dict[int, tuple[str, str]] = {}
        while pieces:
            self.given_up.check()
            taken, pieces = pieces[-_PARSERS:], pieces[:-_PARSERS]
            errors = self._warehouse.stage(lot.schema.head, [lot.blocks(piece) for piece in taken])
            # Two neighbours at once: there are many, and halving on would parse everything again and again.
            is_dense = sum(error is not None for error in errors) > 1
            for piece, error in zip(taken, errors, strict=True):
                if error is not None:
                    pieces += _without_broken(lot, piece, error, broken, look=is_dense)
        batch.refused += [
            Refused(record=lot.record(index), verdict="invalid", reason=reason, error=error)
            for index, (reason, error) in broken.items()
        ]
        if broken:
            lot = batch.lots[lot.schema.schema_id] = lot.without(broken.keys())
        return len(lot)

    def _send(self, letters: list[Refused], topic_id: UUID) -> None:
        with self._metrics.step("dead_letters"):
            self._dead_letters.send(letters, topic_id=topic_id)

    def _account(self, lines: list[LedgerLine], topic_id: UUID, tails: dict[int, LedgerEnd]) -> None:
        self.given_up.check()
        with self._metrics.step("account"):
            if self._topic_id() != topic_id:
                raise TakenOverError("the topic was deleted and created anew")
            new = [line for line in lines if self._goes_on(line, tails[line.partition].end)]
            if new:
                self._write(new, topic_id, tails)

    @staticmethod
    def _goes_on(line: LedgerLine, end: int) -> bool:
        """Whether the line is still to be written, as far as we know; if so, it must follow the one before."""
        if end not in {line.last_offset, line.first_offset - 1}:
            raise SinkError(
                f"partition {line.partition}: the books end at offset {end}, but this batch begins at "
                f"{line.first_offset}: the batch between was not settled"
            )
        return end != line.last_offset

    def _write(self, lines: Sequence[LedgerLine], topic_id: UUID, tails: dict[int, LedgerEnd]) -> None:
        known = {line.partition: tails[line.partition] for line in lines}
        found = self._warehouse.ledger_ends_since(known, topic_id=topic_id)
        new = [line for line in lines if self._is_new(line, known[line.partition], found.get(line.partition))]
        if new:
            self._warehouse.write_lines(new, now=self._clock.now(), topic_id=topic_id)
        tails.update({line.partition: LedgerEnd(end=line.last_offset, line_first=line.first_offset) for line in lines})

    @staticmethod
    def _is_new(line: LedgerLine, tail: LedgerEnd, found: tuple[int, bool] | None) -> bool:
        """Whether the books end where we left them; if not, our own line is there, its acknowledgement was lost."""
        if found is None and tail.line_first is not None:
            raise SinkError(
                f"partition {line.partition}: the books ended at offset {tail.end}, and now they are gone: was "
                "ClickHouse restored, or emptied? Start the sink again to read on from where they end now"
            )
        end, is_ours = found or (tail.end, False)
        if end != tail.end and not (is_ours and end == line.last_offset):
            raise TakenOverError(f"partition {line.partition}: the books go to offset {end} already")
        return end == tail.end


def _without_broken(
    lot: SchemaGroup, piece: Sequence[int], refusal: DataRefusedError, broken: dict[int, tuple[str, str]], *, look: bool
) -> list[Sequence[int]]:
    """Split what ClickHouse refused into pieces to try again; note in ``broken`` reason and error of broken records."""
    if look or len(piece) <= _LOOK_AT_MOST:
        is_aligned = alignment(lot.schema.text)
        bodies = ((index, lot.body(index)) for index in piece)
        errors = {index: _decode_error(body, lot.schema.text) for index, body in bodies if not is_aligned(body)}
        found = {index: ("undecodable", error) for index, error in errors.items() if error}
        if found:
            broken |= found
            rest = [index for index in piece if index not in found]
            return [rest] if rest else []
    if len(piece) == 1:
        broken[piece[0]] = ("refused", str(refusal))
        return []
    return _halves(piece)


def _halves(piece: Sequence[int]) -> list[Sequence[int]]:
    middle = len(piece) // 2
    return [piece[middle:], piece[:middle]]


def _decode_error(body: bytes, schema: str) -> str:
    """Why a record cannot be decoded; empty if it can, be its event sound or not."""
    try:
        decode_record(body, schema)
    except WireFormatError as error:
        return str(error)
    return ""


def _letters(batch: Batch, judgement: Classification) -> list[Refused]:
    if not judgement.refused:
        return []
    places = {
        place: (lot, index)
        for lot in batch.lots.values()
        for index, place in enumerate(zip(lot.partitions, lot.offsets, strict=True))
    }
    letters = []
    for verdict in judgement.refused:
        lot, index = places[verdict.partition, verdict.offset]
        record = lot.record(index)
        if verdict.verdict == "conflict":
            reason = "conflict"
            error = f"the id is taken by an event of other content, from {verdict.other}"
        else:
            reason = verdict.reason
            error = _fault_text(record, lot.schema.text, verdict.reason)
        letters.append(Refused(record=record, verdict=verdict.verdict, reason=reason, error=error))
    return letters


def _fault_text(record: Record, schema: str, reason: str) -> str:
    """All that is wrong with an event where the contract's own validation finds it, else the SQL's finding."""
    try:
        decode(record.value or b"", schema)
    except (InvalidEventError, WireFormatError) as error:
        return str(error)
    return FAULTS[reason]


def _line(partition: int, span: OffsetRange, batch: Batch, judgement: Classification) -> LedgerLine:
    broken = Counter(refused.verdict for refused in batch.refused if refused.record.partition == partition)
    counts = {
        verdict: judgement.counts.get((partition, verdict), 0)
        for verdict in ("duplicate", "conflict", "invalid", "expired")
    }
    invalid = counts["invalid"] + broken["invalid"]
    unstored = counts["duplicate"] + counts["conflict"] + counts["expired"] + invalid
    return LedgerLine(
        partition=partition,
        fencing_time=span.fencing_time,
        first_offset=span.first,
        last_offset=span.last,
        read=span.read,
        stored=span.read - unstored,
        duplicates=counts["duplicate"],
        conflicts=counts["conflict"],
        invalid=invalid,
        expired=counts["expired"],
    )
