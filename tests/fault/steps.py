"""Trips: faults that a sink process causes in itself when it takes a certain step for the n-th time."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal

from confluent_kafka import Consumer

from auditstream_sink.clickhouse_writer import ClickHouseWriter
from auditstream_sink.dead_letters import DeadLetters
from auditstream_sink.worker import Worker


class TrippedConsumer(Consumer):
    """A consumer that `arm` can change: the client's own class is not written in Python."""


STEPS: dict[str, tuple[type, str]] = {
    "consume": (TrippedConsumer, "consume"),
    "hand-over": (Worker, "begin"),
    "clear": (ClickHouseWriter, "clear_stage"),
    "stage": (ClickHouseWriter, "stage"),
    "classify": (ClickHouseWriter, "classify"),
    "insert": (ClickHouseWriter, "insert"),
    "read-back": (ClickHouseWriter, "read_back"),
    "dead-letters": (DeadLetters, "send"),
    "ledger": (ClickHouseWriter, "write_lines"),
    "commit": (TrippedConsumer, "commit"),
}
"""The steps of a batch in their order, each with the method that it begins with."""

LOOP_STEPS = ("consume", "hand-over", "commit")
"""Steps in the loop's thread: while one of them is stalled, the sink does not poll."""

When = Literal["before", "amid", "after"]
Act = Literal["kill", "stop", "stall", "wake", "meet"]

MOMENTS: tuple[tuple[str, When], ...] = tuple(
    (step, when) for step in STEPS for when in ("before", "amid", "after") if not (step == "consume" and when == "amid")
)
"""Every step with every moment at which a trip can happen there."""

_MEET_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """A fault at one step.

    Attributes:
        step: A key of STEPS.
        when: Before the step, during it (amid), or after it.
        call: Number of the call, from 1. Calls of ``consume`` that return no record do not count.
        act: SIGKILL or SIGSTOP to itself; a sleep; SIGCONT to another process; or a meeting: it waits while the
            runner does something.
        seconds: How long to sleep; for ``amid``, the time from the begin of the step.
        pid: The process to wake.
    """

    step: str
    when: When
    call: int
    act: Act
    seconds: float = 0.0
    pid: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.act} {self.when} {self.step} {self.call}"


def arm(trips: list[Trip], meetings: Path) -> None:
    """Change the methods of the steps in this process.

    Args:
        trips: The faults.
        meetings: Directory of the file ``met-<pid>``, which asks the runner to act and then to remove it.
    """
    for step in {trip.step for trip in trips}:
        owner, name = STEPS[step]
        setattr(owner, name, _tripped(getattr(owner, name), [t for t in trips if t.step == step], step, meetings))


def _tripped(method: Callable[..., Any], trips: list[Trip], step: str, meetings: Path) -> Callable[..., Any]:
    lock = threading.Lock()
    calls = 0

    @wraps(method)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        with lock:
            calls += 1
            call = calls
        for trip in trips:
            if trip.call == call and trip.when == "before":
                _act(trip, meetings)
            elif trip.call == call and trip.when == "amid":
                threading.Timer(trip.seconds, _act, (trip, meetings)).start()
        result = method(*arguments, **named)
        if step == "consume" and not result:
            with lock:
                calls -= 1
            return result
        for trip in trips:
            if trip.call == call and trip.when == "after":
                _act(trip, meetings)
        return result

    return wrapper


def _act(trip: Trip, meetings: Path) -> None:
    (meetings / f"tripped-{os.getpid()}").write_text(str(trip), "utf-8")
    if trip.act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif trip.act == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif trip.act == "stall":
        time.sleep(trip.seconds)
    elif trip.act == "wake":
        # The process may have been killed meanwhile.
        with suppress(ProcessLookupError):
            os.kill(trip.pid, signal.SIGCONT)
    else:
        _meet(meetings / f"met-{os.getpid()}")


def _meet(file: Path) -> None:
    file.touch()
    until = time.monotonic() + _MEET_SECONDS
    while file.exists() and time.monotonic() < until:
        time.sleep(0.01)
