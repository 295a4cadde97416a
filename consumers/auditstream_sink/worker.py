"""One thread that settles batches, so that the loop goes on polling and reads the next one meanwhile."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

from auditstream_schemas.errors import AuditstreamError
from auditstream_sink.batch import Batch
from auditstream_sink.ledger import LedgerLine

Settle = Callable[[Batch, UUID], Sequence[LedgerLine]]


class AbandonedError(AuditstreamError):
    """The batch is not ours to finish any more."""


class Worker:
    """Settles at most one batch at a time.

    `pause` is what everything in the thread waits with between two tries: giving a batch up wakes it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="settlement")
        self._given_up = threading.Event()
        self._running: Future[Sequence[LedgerLine]] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a batch was begun whose lines were not collected."""
        return self._running is not None

    def begin(self, settle: Settle, batch: Batch, topic_id: UUID) -> None:
        """Start on a batch; the worker must not be busy."""
        self._given_up.clear()
        self._running = self._pool.submit(settle, batch, topic_id)

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
        """Stop the batch before its next step. Blocks while a statement is under way; its lines are lost to us.

        What it stored stays and is known by its coordinates to whoever reads these offsets next.
        """
        if self._running is None:
            return
        self._given_up.set()
        error = self._running.exception()
        self._running = None
        if error is not None and not isinstance(error, AuditstreamError):
            raise error

    def pause(self, seconds: float) -> None:
        """Wait between two tries.

        Raises:
            AbandonedError: The batch was given up.
        """
        if self._given_up.wait(seconds):
            raise AbandonedError("the batch was given up")

    def check(self) -> None:
        """Go on only if the batch is still wanted.

        Raises:
            AbandonedError: The batch was given up.
        """
        self.pause(0)

    def close(self) -> None:
        """Give up what is running and end the thread."""
        self.give_up()
        self._pool.shutdown()
