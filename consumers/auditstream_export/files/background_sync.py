"""Bringing files to the disk while the next bytes already come."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress


class BackgroundSync:
    """Does what waits for the disk, one thing after the other, on a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "export-sync")
        self._pending: deque[Future[object]] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to be done."""
        return all(each.done() for each in self._pending)

    def submit(self, action: Callable[[], object]) -> None:
        """Do this after all else.

        Raises:
            OSError: Something earlier failed.
        """
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(action))

    def wait(self) -> None:
        """Block until everything is done.

        Raises:
            OSError: Something failed.
        """
        while self._pending:
            self._pending.popleft().result()

    def close(self) -> None:
        """Block until everything is done, or has failed."""
        self._thread.shutdown()
        while self._pending:
            with suppress(OSError):
                self._pending.popleft().result()
