"""Runs a blocking call in a thread, so that signals still interrupt the wait for its result."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from auditstream_schemas.background import in_background

_T = TypeVar("_T")


class Prefetch(Generic[_T]):
    """A call that runs in a daemon thread; it does not keep the process from ending."""

    def __init__(self, call: Callable[[], _T]) -> None:
        self._result = in_background(call, "export-prefetch")

    def answer(self) -> _T:
        """Block until the call has ended, and return its result or raise its exception."""
        return self._result.result()

    def drop(self, close: Callable[[_T], object]) -> None:
        """Discard the result: pass it to ``close`` as soon as the call has ended."""

        def closed(result: "Future[_T]") -> None:
            if result.exception() is None:
                close(result.result())

        self._result.add_done_callback(closed)
