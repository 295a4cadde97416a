"""Writes a batch: stage, classify, insert, read back, dead letters, ledger.

Every step can be repeated after any failure, because:

* the stage is emptied before it is filled;
* a row that an earlier attempt stored is found by its topic id, partition and offset;
* a dead letter carries these coordinates of its record, so readers drop a second one;
* a ledger line that is written twice collapses into one.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from auditstream_schemas.codec import decode, decode_record
from auditstream_schemas.errors import AuditstreamError, InvalidEventError, SinkError, WireFormatError
from auditstream_sink.batch import Batch, RefusedRecord, SchemaGroup
from auditstream_sink.clickhouse_writer import Classification, ClickHouseWriter, DataRefusedError, UnknownOutcomeError
from auditstream_sink.clock import Clock
from auditstream_sink.dead_letters import DeadLetterLimit, DeadLetters, DeadLettersUndeliveredError
from auditstream_sink.framing import trailing_bytes_check
from auditstream_sink.health import Health, dependency_at_fault
from auditstream_sink.metrics import Metrics
from auditstream_sink.statements import FAULTS
from auditstream_storage import LedgerEnd, LedgerLine

_MAX_DECODED = 2048
"""A container that ClickHouse refuses is halved down to this many records; these are then decoded one by one."""
_PARSERS = 2
"""Containers that ClickHouse parses at once, one thread each: parsing is the longest step."""
_SPLIT_ROWS = 10_000
"""A group of more records is parsed as two containers; for a smaller one a second request costs more than it saves."""

_WAITER = "batch"
_T = TypeVar("_T")
_logger = logging.getLogger("auditstream.sink")


class TakenOverError(AuditstreamError):
    """Another sink has written the ledger of a partition: the partition is not this sink's any more."""


class BatchCancelledError(AuditstreamError):
    """The batch was cancelled; another sink, or this one, reads its offsets again."""


class Cancellation:
    """Tells the thread that writes a batch to stop. Safe to share between threads."""

    def __init__(self) -> None:
        self._cancelled: Future[None] = Future()

    def cancel(self) -> None:
        """Stop the batch before its next step, also while it waits between two attempts. Does not block."""
        with suppress(InvalidStateError):
            self._cancelled.set_result(None)

    def sleep(self, seconds: float) -> None:
        """Wait between two attempts; raises BatchCancelledError as soon as the batch is cancelled."""
        done, _waiting = wait([self._cancelled], seconds)
        if done:
            raise BatchCancelledError("the batch was cancelled")

    def raise_if_cancelled(self) -> None:
        """Raise BatchCancelledError if the batch was cancelled; does not block."""
        self.sleep(0)

    def wait_for(self, previous: "Future[Any] | None") -> None:
        """Block until the previous batch is written. Raises BatchCancelledError if it failed, or as `sleep` does."""
        if previous is not None:
            wait([self._cancelled, previous], return_when=FIRST_COMPLETED)
        self.raise_if_cancelled()
        if previous is not None and previous.exception() is not None:
            raise BatchCancelledError("the previous batch was not written")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchWriter:
    """Writes one batch at a time. Blocks until the batch is in the ledger, however long ClickHouse is away.

    Has a stage, connections and a dead-letter producer of its own. A cancelled writer may still be in the middle of
    a statement, so it shares none of these with the one that replaces it.

    Attributes:
        topic_id: Asks the broker for the topic's id.
        clock: For the times in rows and ledger lines.
        cancellation: Cancels the batch that is being written. Its rows stay; the sink that reads these offsets next
            finds them by their coordinates.
    """

    clickhouse: ClickHouseWriter
    dead_letters: DeadLetters
    topic_id: Callable[[], UUID]
    clock: Clock
    dead_letter_limit: DeadLetterLimit
    metrics: Metrics
    health: Health
    cancellation: Cancellation = field(default_factory=Cancellation)

    def close(self) -> None:
        """Drop the stage. Blocks on ClickHouse; no batch may be in progress."""
        try:
            self.clickhouse.close()
        except UnknownOutcomeError as error:
            _logger.warning("the stage was not dropped, a later sink drops it: %s", error)

    def write(
        self, batch: Batch, topic_id: UUID, *, ledger_ends: dict[int, LedgerEnd], previous: "Future[Any] | None"
    ) -> list[LedgerLine]:
        """Write a batch and return its ledger lines, one a partition.

        Advances ``ledger_ends`` to these lines. Classifies the batch only after the previous one is in the ledger.

        Raises:
            TakenOverError: Another sink has written these offsets to the ledger; drop the batch.
            BatchCancelledError: The batch was cancelled, or the previous one failed.
            SinkError: Too many records are refused, or the ledger is not as this sink left it.
        """
        classification = Classification()
        if batch.groups:
            classification = self._retry(lambda: self._store(batch, topic_id, previous))
        # A batch that was cancelled in the middle of a statement has a successor already.
        self.cancellation.wait_for(previous)
        refused = [*batch.refused, *_refused_records(batch, classification)]
        self.dead_letter_limit.check(batch.rows, refused)
        if refused:
            self._retry(lambda: self._send_dead_letters(refused, topic_id))
        lines = [_ledger_line(number, batch, classification) for number in sorted(batch.offset_ranges)]
        self._retry(lambda: self._write_ledger(lines, topic_id, ledger_ends))
        self.dead_letter_limit.add(batch.rows, refused)
        self.metrics.batch_written(lines, (record.reason for record in refused), opened=batch.opened)
        return lines

    def _retry(self, action: Callable[[], _T]) -> _T:
        """Repeat an action until its outcome is known; the health shows the wait meanwhile."""
        attempts = Retrying(
            retry=retry_if_exception_type((UnknownOutcomeError, DeadLettersUndeliveredError)),
            wait=wait_exponential_jitter(multiplier=0.2, max=30),
            sleep=self.cancellation.sleep,
            before_sleep=self._report_wait,
            reraise=True,
        )
        try:
            result = attempts(action)
        except BatchCancelledError:
            # Whether the dependency is back is not known: the writer that replaces this one ends the wait.
            raise
        except BaseException:
            self.health.recovered(_WAITER)
            raise
        self.health.recovered(_WAITER)
        return result

    def _report_wait(self, state: RetryCallState) -> None:
        if state.outcome is not None and (error := state.outcome.exception()) is not None:
            self.health.waiting(_WAITER, dependency_at_fault(error), error)

    def _store(self, batch: Batch, topic_id: UUID, previous: "Future[Any] | None") -> Classification:
        try:
            return self._try_to_store(batch, topic_id, previous)
        except AuditstreamError:
            self.clickhouse.abandon_stage()
            raise

    def _try_to_store(self, batch: Batch, topic_id: UUID, previous: "Future[Any] | None") -> Classification:
        with self.metrics.step("stage"):
            staged = self._stage(batch)
        self.cancellation.wait_for(previous)
        now = self.clock.now()
        with self.metrics.step("classify"):
            classification = self.clickhouse.classify(now=now, topic_id=topic_id)
        with self.metrics.step("insert"):
            self.clickhouse.insert(now=now, topic_id=topic_id)
        with self.metrics.step("read_back"):
            missing, still_staged = self.clickhouse.read_back(topic_id=topic_id)
            if missing:
                raise UnknownOutcomeError(f"read back: {missing} inserted records are missing")
            if still_staged != staged:
                # On an empty stage no record is refused and none is missing: the read-back proves nothing.
                raise UnknownOutcomeError("ClickHouse lost the stage")
        return classification

    def _stage(self, batch: Batch) -> int:
        self.clickhouse.clear_stage()
        expected = sum(self._stage_group(batch, group) for group in list(batch.groups.values()))
        staged = self.clickhouse.staged()
        if staged != expected:
            raise UnknownOutcomeError(f"staged {staged} of {expected} records")
        return staged

    def _stage_group(self, batch: Batch, group: SchemaGroup) -> int:
        """Stage a group, move its broken records to the refused ones of the batch, and return how many are staged."""
        everything = range(len(group))
        pieces = _halves(everything) if len(group) > _SPLIT_ROWS else [everything]
        broken: dict[int, tuple[str, str]] = {}
        while pieces:
            self.cancellation.raise_if_cancelled()
            current, pieces = pieces[-_PARSERS:], pieces[:-_PARSERS]
            errors = self.clickhouse.stage(group.schema.head, [group.blocks(piece) for piece in current])
            # Two neighbours are refused: there are many broken records, and halving would parse all of them many times.
            is_dense = sum(error is not None for error in errors) > 1
            for piece, error in zip(current, errors, strict=True):
                if error is not None:
                    pieces += _without_broken(group, piece, error, broken, decode_now=is_dense)
        batch.refused += [
            RefusedRecord(record=group.record(index), status="invalid", reason=reason, error=error)
            for index, (reason, error) in broken.items()
        ]
        if broken:
            group = batch.groups[group.schema.schema_id] = group.without(broken.keys())
        return len(group)

    def _send_dead_letters(self, refused: list[RefusedRecord], topic_id: UUID) -> None:
        with self.metrics.step("dead_letters"):
            self.dead_letters.send(refused, topic_id=topic_id)

    def _write_ledger(self, lines: list[LedgerLine], topic_id: UUID, ledger_ends: dict[int, LedgerEnd]) -> None:
        self.cancellation.raise_if_cancelled()
        with self.metrics.step("ledger"):
            if self.topic_id() != topic_id:
                raise TakenOverError("the topic was deleted and created again")
            known = {line.partition: ledger_ends[line.partition] for line in lines}
            stored = self.clickhouse.ledger_ends_since(known, topic_id=topic_id)
            new = [line for line in lines if _is_new(line, known[line.partition], stored.get(line.partition))]
            if new:
                self.clickhouse.write_lines(new, now=self.clock.now(), topic_id=topic_id)
            for line in lines:
                ledger_ends[line.partition] = LedgerEnd(end=line.last_offset, line_first=line.first_offset)


def _is_new(line: LedgerLine, known: LedgerEnd, stored: tuple[int, bool] | None) -> bool:
    """Whether the ledger ends where this sink left it; false if it ends with this line, whose answer was lost.

    Raises SinkError if a batch between is missing or the ledger is gone, TakenOverError if another sink has written it.
    """
    if known.end != line.first_offset - 1:
        raise SinkError(
            f"partition {line.partition}: the ledger ends at offset {known.end}, but this batch begins at "
            f"{line.first_offset}: the batch between was not written"
        )
    if stored is None and known.line_first is not None:
        raise SinkError(
            f"partition {line.partition}: the ledger ended at offset {known.end}, and now it is gone: was "
            "ClickHouse restored, or emptied? Start the sink again to read on from where the ledger ends now"
        )
    end, is_ours = stored or (known.end, False)
    if end != known.end and not (is_ours and end == line.last_offset):
        raise TakenOverError(f"partition {line.partition}: the ledger goes to offset {end} already")
    return end == known.end


def _without_broken(
    group: SchemaGroup,
    piece: Sequence[int],
    refusal: DataRefusedError,
    broken: dict[int, tuple[str, str]],
    *,
    decode_now: bool,
) -> list[Sequence[int]]:
    """Split a refused piece into pieces to try again; add broken records to ``broken``, with reason and error."""
    if decode_now or len(piece) <= _MAX_DECODED:
        has_no_trailing_bytes = trailing_bytes_check(group.schema.text)
        bodies = ((index, group.body(index)) for index in piece)
        # A record that can be decoded may still have an event that is not valid: the classification finds it.
        errors = {
            index: _error_of(decode_record, body, group.schema.text)
            for index, body in bodies
            if not has_no_trailing_bytes(body)
        }
        if undecodable := {index: ("undecodable", error) for index, error in errors.items() if error}:
            broken |= undecodable
            rest = [index for index in piece if index not in undecodable]
            return [rest] if rest else []
    if len(piece) == 1:
        broken[piece[0]] = ("refused", str(refusal))
        return []
    return _halves(piece)


def _halves(piece: Sequence[int]) -> list[Sequence[int]]:
    middle = len(piece) // 2
    return [piece[middle:], piece[:middle]]


def _error_of(decoder: Callable[[bytes, str], object], data: bytes, schema: str) -> str:
    """The text of the error with which data cannot be decoded; empty if there is none."""
    try:
        decoder(data, schema)
    except (InvalidEventError, WireFormatError) as error:
        return str(error)
    return ""


def _refused_records(batch: Batch, classification: Classification) -> list[RefusedRecord]:
    """The staged records that were refused, whole."""
    if not classification.refused:
        return []
    staged = {
        coordinates: (group, index)
        for group in batch.groups.values()
        for index, coordinates in enumerate(zip(group.partitions, group.offsets, strict=True))
    }
    refused = []
    for row in classification.refused:
        group, index = staged[row.partition, row.offset]
        record = group.record(index)
        if row.status == "conflict":
            error = f"the id is taken by an event of other content, from {row.first_seen}"
        else:
            # The validation in Python finds all faults of the event, SQL the first one.
            error = _error_of(decode, record.value or b"", group.schema.text) or FAULTS[row.reason]
        refused.append(RefusedRecord(record=record, status=row.status, reason=row.reason or row.status, error=error))
    return refused


def _ledger_line(partition: int, batch: Batch, classification: Classification) -> LedgerLine:
    offsets = batch.offset_ranges[partition]
    counts = Counter(refused.status for refused in batch.refused if refused.record.partition == partition)
    for status in ("duplicate", "conflict", "invalid", "expired"):
        counts[status] += classification.counts.get((partition, status), 0)
    return LedgerLine(
        partition=partition,
        fencing_time=offsets.fencing_time,
        first_offset=offsets.first,
        last_offset=offsets.last,
        read=offsets.read,
        stored=offsets.read - counts.total(),
        duplicates=counts["duplicate"],
        conflicts=counts["conflict"],
        invalid=counts["invalid"],
        expired=counts["expired"],
    )
