"""Calls that run in threads of their own, which do not keep the process from ending."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")


def in_background(work: Callable[[], _T], name: str) -> "Future[_T]":
    """Run a call in a daemon thread of that name. The future has its result, or the error that it raised."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again by Future.result
            future.set_exception(error)

    Thread(target=run, name=name, daemon=True).start()
    return future
