"""Settling in threads of its own, so that the loop goes on polling and reads the next batch meanwhile.

Two batches are in hand at most, one behind the other: the second is staged while the first is judged, stored and
accounted for, and is judged once the books have the first. So ClickHouse parses while it writes.
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
from auditstream_storage.ledger import LedgerEnd, LedgerLine

_AT_ONCE = 2
"""More would wait for the engine, which parses one batch and writes another on its two or more cores."""

_CLOSE_SECONDS = 5.0
"""To drop the stages at the end; what is left behind, a later sink removes."""

_logger = logging.getLogger("auditstream.sink")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    settlement: BatchWriter
    spans: Mapping[int, OffsetRange]
    outcome: Future[list[LedgerLine]]


class Worker:
    """Settles batches in the order in which they are begun.

    Args:
        new_settlement: Makes one that batches go through, and another where one was left in the middle of a
            statement.

    Attributes:
        tails: Where the books of each partition end; empty again after batches were given up. The loop enters a
            partition that it is given; from then on the lines that are written move it.
    """

    def __init__(self, new_settlement: Callable[[], BatchWriter]) -> None:
        self._new_settlement = new_settlement
        self._idle = [new_settlement() for _number in range(_AT_ONCE)]
        self._jobs: deque[_Job] = deque()
        self.tails: dict[int, LedgerEnd] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a batch was begun whose lines were not collected."""
        return bool(self._jobs)

    @property
    def is_full(self) -> bool:
        """Whether no other batch can be begun."""
        return not self._idle

    @property
    def spans(self) -> Sequence[Mapping[int, OffsetRange]]:
        """Offsets of the batches in hand, oldest first."""
        return [job.spans for job in self._jobs]

    def begin(self, batch: Batch, topic_id: UUID) -> None:
        """Start on a batch; the worker must not be full."""
        settlement, tails = self._idle.pop(), self.tails
        before: Future[list[LedgerLine]] = Future()
        if self._jobs:
            before = self._jobs[-1].outcome
        else:
            before.set_result([])
        outcome = in_background(lambda: settlement.settle(batch, topic_id, tails=tails, before=before), "sink-settle")
        self._jobs.append(_Job(settlement=settlement, spans=batch.spans, outcome=outcome))

    def collect(self, timeout: float) -> Sequence[LedgerLine] | None:
        """The lines of the oldest batch, or None if it takes longer than ``timeout`` seconds.

        Raises:
            AuditstreamError: What settling it raised. The batch behind it will not be settled either: give up.
        """
        if not self._jobs:
            return ()
        job = self._jobs[0]
        if not wait([job.outcome], timeout).done:
            return None
        error = job.outcome.exception()
        if error is None or isinstance(error, AuditstreamError):
            self._jobs.popleft()
            self._idle.append(job.settlement)
        return job.outcome.result()

    def give_up(self) -> None:
        """Leave the batches at once; their threads end behind the statements that they are in the middle of.

        What they stored stays and is known by its coordinates to whoever reads these offsets next.
        """
        if not self._jobs:
            return
        for job in self._jobs:
            job.settlement.given_up.tell()
        for job in self._jobs:
            in_background(partial(_retire, job), "sink-retire")
            self._idle.append(self._new_settlement())
        self._jobs.clear()
        self.tails = {}

    def close(self) -> None:
        """Give up what is running, and clear away. Blocks for some seconds at most."""
        self.give_up()
        wait([in_background(settlement.close, "sink-close") for settlement in self._idle], _CLOSE_SECONDS)


def _retire(job: _Job) -> None:
    error = job.outcome.exception()
    if error is not None and not isinstance(error, AuditstreamError):
        _logger.error("a batch that was given up failed", exc_info=error)
    job.settlement.close()
