"""How the loop cancels a batch that another thread is writing."""

from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from typing import Any

from auditstream_schemas.errors import AuditstreamError


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
        """Wait until the previous batch, if there is one, is written; blocks until then.

        Raises:
            BatchCancelledError: The batch was cancelled, or the previous batch failed.
        """
        if previous is not None:
            wait([self._cancelled, previous], return_when=FIRST_COMPLETED)
        self.raise_if_cancelled()
        if previous is not None and previous.exception() is not None:
            raise BatchCancelledError("the previous batch was not written")
