"""Syncs files to the disk while the next bytes are being received."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundSync:
    """Runs blocking disk calls one after another in a thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "export-sync")
        self._pending: deque[Future[object]] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether no call is pending."""
        return all(call.done() for call in self._pending)

    def submit(self, action: Callable[[], object]) -> None:
        """Run a call after all pending ones.

        Raises:
            OSError: An earlier call failed.
        """
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(action))

    def wait(self) -> None:
        """Block until every call has ended.

        Raises:
            OSError: A call failed.
        """
        while self._pending:
            self._pending.popleft().result()

    def close(self) -> None:
        """Block until every call has ended or failed, and end the thread."""
        self._thread.shutdown()
        self._pending.clear()
