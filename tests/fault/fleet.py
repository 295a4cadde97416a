"""The sinks of a schedule. A sink that has ended is replaced by another."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.fault.sink_process import VARIABLE, Orders
from tests.fault.steps import Trip

_RESTART_SECONDS = 0.2
_DUMP_SECONDS = 2.0
_LOG_TEXTS = (
    "waiting for ClickHouse",
    "waiting for the broker",
    "waiting for the schema registry",
    "going on",
    "revoked [",
    "lost [",
    "read on from there",
    "offsets not committed",
    "stopped before the last batch was written",
    "a cancelled batch failed",
)
"""Texts in a sink's log which show that a fault had an effect."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One sink process.

    Attributes:
        process: The process.
        log: Its standard error.
        trips: Its trips.
        is_ended_by_us: Whether it was asked to stop, or killed, by this fleet.
    """

    process: subprocess.Popen[bytes]
    log: Path
    trips: Sequence[Trip]
    is_ended_by_us: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_asleep(self) -> bool:
        """Whether it was stopped by a signal."""
        try:
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
        except psutil.NoSuchProcess:
            return False


@dataclass(slots=True, kw_only=True)
class Fleet:
    """Keeps a number of sinks running. Must be used by one thread: the processes die with the thread that started them.

    Attributes:
        env: Environment of the sinks.
        directory: Directory of the logs and the meetings.
        size: How many sinks should run; stopped ones (SIGSTOP) count.
        max_poll_ms: ``max.poll.interval.ms`` of each.
        sabotage: Key of SABOTAGES for each sink; empty for none.
        skews: Clock skew of each next sink, in seconds; 0 when the list is empty.
        trips: Trips of each next sink; none when the list is empty.
        members: The running sinks.
        starts: How many were started.
        deaths: Exit code and last log line of each sink that ended by itself.
        allowed: A sink may end with exit code 1 if its last log line has one of these texts.
    """

    env: Mapping[str, str]
    directory: Path
    size: int
    max_poll_ms: int
    sabotage: str = ""
    skews: deque[float] = field(default_factory=deque)
    trips: deque[list[Trip]] = field(default_factory=deque)
    members: list[Member] = field(default_factory=list)
    starts: int = 0
    deaths: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    _not_before: float = 0.0

    def tick(self) -> None:
        """Remove the sinks that have ended, and start one if some are missing."""
        for member in list(self.members):
            if member.process.poll() is not None:
                self._remove(member)
        if len(self.members) < self.size and time.monotonic() >= self._not_before:
            self.start(self.trips.popleft() if self.trips else [])

    def start(self, trips: Sequence[Trip]) -> Member:
        """Start a sink."""
        self.starts += 1
        log = self.directory / f"sink-{self.starts}.log"
        orders = Orders(
            meetings=str(self.directory),
            parent_pid=os.getpid(),
            trips=list(trips),
            skew_seconds=self.skews.popleft() if self.skews else 0.0,
            max_poll_ms=self.max_poll_ms,
            sabotage=self.sabotage,
        )
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fault.sink_process"],
                env={**os.environ, **self.env, VARIABLE: orders.to_json()},
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        member = Member(process=process, log=log, trips=trips)
        self.members.append(member)
        return member

    def tripped(self) -> list[str]:
        """The last trip of each sink that had one."""
        return [file.read_text("utf-8") for file in sorted(self.directory.glob("tripped-*"))]

    def log_counts(self) -> dict[str, int]:
        """How often each text is in the logs of the sinks."""
        text = "\n".join(log.read_text("utf-8", "replace") for log in self.directory.glob("sink-*.log"))
        return {log_text: count for log_text in _LOG_TEXTS if (count := text.count(log_text))}

    def met(self) -> Path | None:
        """The file of a sink that waits in a meeting; the sink goes on when the file is removed."""
        return next(iter(self.directory.glob("met-*")), None)

    def asleep(self) -> list[Member]:
        """The sinks that were stopped by a signal."""
        return [member for member in self.members if member.is_asleep]

    def wake(self) -> None:
        """Send SIGCONT to every sink."""
        for member in self.members:
            member.process.send_signal(signal.SIGCONT)

    def kill(self, member: Member) -> None:
        """End a sink by SIGKILL."""
        member.is_ended_by_us = True
        member.process.kill()

    def dismiss(self, member: Member) -> None:
        """Ask a sink by SIGTERM to finish its batches and stop; does not block."""
        if not member.is_ended_by_us:
            member.is_ended_by_us = True
            member.process.send_signal(signal.SIGTERM)

    def dump(self) -> None:
        """Have every sink write the stacks of its threads to its log. Blocks for two seconds."""
        self.wake()
        for member in self.members:
            member.process.send_signal(signal.SIGUSR1)
        time.sleep(_DUMP_SECONDS)

    def kill_all(self) -> None:
        """End all sinks by SIGKILL. Blocks until they have ended."""
        self.size = 0
        for member in self.members:
            member.process.kill()
        for member in self.members:
            member.process.wait()
        self.members.clear()

    def _remove(self, member: Member) -> None:
        self.members.remove(member)
        self._not_before = time.monotonic() + _RESTART_SECONDS
        code = member.process.returncode
        # A sink that gets SIGTERM before it handles the signal ends by the signal itself.
        expected = {-signal.SIGKILL, -signal.SIGTERM, 0} if member.is_ended_by_us else {-signal.SIGKILL}
        if code in expected:
            return
        lines = member.log.read_text("utf-8", "replace").splitlines()
        last = lines[-1] if lines else ""
        if code == 1 and any(text in last for text in self.allowed):
            return
        self.deaths.append(f"{member.log.name} ended with {code}: {last}")
