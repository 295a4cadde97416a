"""Writes batches in threads of their own, so that the loop goes on polling and fills the next batch meanwhile.

Two batches are written at once at most. The second is staged while the first is classified, inserted and entered into
the ledger; it is classified only after that. So ClickHouse parses one batch while it inserts another.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from auditstream_schemas.background import in_background
from auditstream_schemas.errors import AuditstreamError
from auditstream_sink.batch import Batch, OffsetRange
from auditstream_sink.batch_writer import BatchWriter
from auditstream_storage import LedgerEnd, LedgerLine

_MAX_BATCHES = 2
"""ClickHouse parses one batch and inserts another on two cores; a third batch would only wait."""
_CLOSE_SECONDS = 5.0
"""Time to drop the stages at the end; a later sink drops the others."""

_logger = logging.getLogger("auditstream.sink")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    writer: BatchWriter
    offset_ranges: Mapping[int, OffsetRange]
    lines: Future[list[LedgerLine]]


class Worker:
    """Writes batches in the order in which they are begun. Belongs to the loop's thread.

    ``new_writer`` makes a batch writer: two at the start, and another for each that is cancelled.
    """

    def __init__(self, new_writer: Callable[[], BatchWriter]) -> None:
        self._new_writer = new_writer
        self._idle = [new_writer() for _number in range(_MAX_BATCHES)]
        self._jobs: deque[_Job] = deque()

    @property
    def is_busy(self) -> bool:
        """Whether a batch was begun whose lines were not collected."""
        return bool(self._jobs)

    @property
    def is_full(self) -> bool:
        """Whether no other batch can be begun."""
        return not self._idle

    @property
    def offset_ranges(self) -> Sequence[Mapping[int, OffsetRange]]:
        """Offsets of the batches that are being written, oldest batch first."""
        return [job.offset_ranges for job in self._jobs]

    def begin(self, batch: Batch, topic_id: UUID, ledger_ends: dict[int, LedgerEnd]) -> None:
        """Begin to write a batch, as `BatchWriter.write` does; does not block. The worker must not be full."""
        writer = self._idle.pop()
        previous = self._jobs[-1].lines if self._jobs else None
        write = partial(writer.write, batch, topic_id, ledger_ends=ledger_ends, previous=previous)
        lines = in_background(write, "sink-write")
        self._jobs.append(_Job(writer=writer, offset_ranges=batch.offset_ranges, lines=lines))

    def collect(self, timeout: float) -> Sequence[LedgerLine] | None:
        """The ledger lines of the oldest batch, or None if it takes longer than ``timeout`` seconds.

        Raises the error of the batch, if it failed. The batch behind it will fail too: call ``cancel``.
        """
        if not self._jobs:
            return ()
        job = self._jobs[0]
        if not wait([job.lines], timeout).done:
            return None
        error = job.lines.exception()
        if error is None or isinstance(error, AuditstreamError):
            self._jobs.popleft()
            self._idle.append(job.writer)
        return job.lines.result()

    def cancel(self) -> None:
        """Cancel all batches; does not block. Their threads end after the statements that they are executing.

        Rows that they stored stay; the sink that reads these offsets next finds them by their coordinates.
        """
        for job in self._jobs:
            job.writer.cancellation.cancel()
            in_background(partial(_retire, job), "sink-retire")
            self._idle.append(self._new_writer())
        self._jobs.clear()

    def close(self) -> None:
        """Cancel all batches and drop the stages. Blocks for five seconds at most."""
        self.cancel()
        wait([in_background(writer.close, "sink-close") for writer in self._idle], _CLOSE_SECONDS)


def _retire(job: _Job) -> None:
    error = job.lines.exception()
    if error is not None and not isinstance(error, AuditstreamError):
        _logger.error("a cancelled batch failed", exc_info=error)
    job.writer.close()
