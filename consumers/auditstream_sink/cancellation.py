"""How to call off a batch that a thread beside the loop is at work on."""

from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from typing import Any

from auditstream_schemas.errors import AuditstreamError


class BatchCancelledError(AuditstreamError):
    """The batch is not ours to finish any more."""


class Cancellation:
    """Tells a thread that its batch is not wanted any more."""

    def __init__(self) -> None:
        self._told: Future[None] = Future()

    def tell(self) -> None:
        """Stop the batch before its next step, also if it waits between two tries. Does not block."""
        with suppress(InvalidStateError):
            self._told.set_result(None)

    def pause(self, seconds: float) -> None:
        """Wait between two tries.

        Raises:
            AbandonedError: The batch was given up.
        """
        done, _waiting = wait([self._told], seconds)
        if done:
            raise BatchCancelledError("the batch was given up")

    def outlast(self, other: "Future[Any]") -> None:
        """Wait until other work is done, however long that takes.

        Raises:
            AbandonedError: The batch was given up, or the other work failed.
        """
        wait([self._told, other], return_when=FIRST_COMPLETED)
        self.check()
        if other.exception() is not None:
            raise BatchCancelledError("the batch before this one was not settled")

    def check(self) -> None:
        """Go on only if the batch is still wanted.

        Raises:
            AbandonedError: The batch was given up.
        """
        self.pause(0)
