"""Work beside the loop: threads that do not keep the process from ending, and how to call one off."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from auditstream_schemas.errors import AuditstreamError

_T = TypeVar("_T")


class AbandonedError(AuditstreamError):
    """The batch is not ours to finish any more."""


class GiveUp:
    """Tells a thread that its batch is not wanted any more."""

    def __init__(self) -> None:
        self._told = threading.Event()

    def tell(self) -> None:
        """Stop the batch before its next step, also if it waits between two tries. Does not block."""
        self._told.set()

    def pause(self, seconds: float) -> None:
        """Wait between two tries.

        Raises:
            AbandonedError: The batch was given up.
        """
        if self._told.wait(seconds):
            raise AbandonedError("the batch was given up")

    def check(self) -> None:
        """Go on only if the batch is still wanted.

        Raises:
            AbandonedError: The batch was given up.
        """
        self.pause(0)


def in_background(work: Callable[[], _T]) -> "Future[_T]":
    """Run it in a thread that does not keep the process from ending."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="auditstream-sink", daemon=True).start()
    return future
