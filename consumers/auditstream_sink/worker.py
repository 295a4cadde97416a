"""Settling in a thread of its own, so that the loop goes on polling and reads the next batch meanwhile."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from uuid import UUID

from auditstream_schemas.errors import AuditstreamError
from auditstream_sink.background import in_background
from auditstream_sink.batch import Batch
from auditstream_sink.ledger import LedgerLine, Tail
from auditstream_sink.settlement import Settlement

_CLOSE_SECONDS = 5.0
"""To drop the stage at the end; what is left behind, a later sink removes."""

_logger = logging.getLogger("auditstream.sink")


class Worker:
    """Settles at most one batch at a time.

    Args:
        new_settlement: Makes the one that batches go through, and another where one was left in the middle
            of a statement.
    """

    def __init__(self, new_settlement: Callable[[], Settlement]) -> None:
        self._new_settlement = new_settlement
        self._settlement = new_settlement()
        self._running: Future[Sequence[LedgerLine]] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a batch was begun whose lines were not collected."""
        return self._running is not None

    @property
    def tails(self) -> dict[int, Tail]:
        """Where the books of each partition end; empty again after a batch was given up."""
        return self._settlement.tails

    def begin(self, batch: Batch, topic_id: UUID) -> None:
        """Start on a batch; the worker must not be busy."""
        settlement = self._settlement
        self._running = in_background(lambda: settlement.settle(batch, topic_id))

    def collect(self, timeout: float) -> Sequence[LedgerLine] | None:
        """The lines of the batch, or None if it takes longer than ``timeout`` seconds.

        Raises:
            AuditstreamError: What settling it raised. The worker is free again.
        """
        if self._running is None:
            return ()
        try:
            lines = self._running.result(timeout)
        except TimeoutError:
            if self._running.done():
                raise
            return None
        except AuditstreamError:
            self._running = None
            raise
        self._running = None
        return lines

    def give_up(self) -> None:
        """Leave the batch at once; its thread ends behind the statement that it is in the middle of.

        What it stored stays and is known by its coordinates to whoever reads these offsets next.
        """
        if self._running is not None:
            self._settlement.given_up.tell()
            settlement, left = self._settlement, self._running
            in_background(lambda: _retire(settlement, left))
            self._settlement, self._running = self._new_settlement(), None

    def close(self) -> None:
        """Give up what is running, and clear away. Blocks for some seconds at most."""
        self.give_up()
        wait([in_background(self._settlement.close)], _CLOSE_SECONDS)


def _retire(settlement: Settlement, left: Future[Sequence[LedgerLine]]) -> None:
    error = left.exception()
    if error is not None and not isinstance(error, AuditstreamError):
        _logger.error("a batch that was given up failed", exc_info=error)
    settlement.close()
