"""Waiting in tests for something that happens in another thread or process."""

from collections.abc import Callable
from time import monotonic, sleep


def eventually(holds: Callable[[], bool], what: str, patience: float = 20.0) -> None:
    """Wait until a condition holds; fail with its description if it does not within ``patience`` seconds."""
    deadline = monotonic() + patience
    while not holds():
        assert monotonic() < deadline, f"not in {patience} s: {what}"
        sleep(0.02)
