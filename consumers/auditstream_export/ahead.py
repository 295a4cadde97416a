"""Asking for what comes next while what came is still being read."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

from urllib3.response import BaseHTTPResponse


class Asked:
    """A question that is under way, on a thread of its own that nothing waits for."""

    def __init__(self, ask: Callable[[], BaseHTTPResponse]) -> None:
        self._answer: Future[BaseHTTPResponse] = Future()
        Thread(target=self._run, args=(ask,), name="export-ahead", daemon=True).start()

    def answer(self) -> BaseHTTPResponse:
        """The answer, when it has begun to come; blocks, and raises what asking raised."""
        return self._answer.result()

    def drop(self) -> None:
        """The answer is not wanted: close it as soon as it begins to come."""
        self._answer.add_done_callback(_close)

    def _run(self, ask: Callable[[], BaseHTTPResponse]) -> None:
        try:
            self._answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 (raised where the answer is taken)
            self._answer.set_exception(error)


def _close(answer: "Future[BaseHTTPResponse]") -> None:
    if answer.exception() is None:
        answer.result().close()
