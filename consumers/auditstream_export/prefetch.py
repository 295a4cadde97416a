"""Waiting for what takes long without being deaf to signals, and asking for what comes next in the meantime."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from auditstream_schemas.background import in_background

_T = TypeVar("_T")


class Prefetch(Generic[_T]):
    """Something that is under way on a thread of its own; the process may end without it."""

    def __init__(self, ask: Callable[[], _T]) -> None:
        self._answer = in_background(ask, "export-ahead")

    def answer(self) -> _T:
        """What came of it; blocks, and raises what it raised. A signal ends the wait."""
        return self._answer.result()

    def drop(self, close: Callable[[_T], object]) -> None:
        """It is not wanted: close what comes of it, as soon as it comes."""

        def dropped(answer: "Future[_T]") -> None:
            if answer.exception() is None:
                close(answer.result())

        self._answer.add_done_callback(dropped)
