"""The sinks of a schedule, and the supervisor that starts another when one ends."""

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
_TELLING = (
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
"""What tells in a sink's log that a fault was felt."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One sink process.

    Attributes:
        process: The process.
        log: What it wrote to standard error.
        trips: What was to happen to it.
        asked: Whether it was told to stop, or killed by us.
    """

    process: subprocess.Popen[bytes]
    log: Path
    trips: Sequence[Trip]
    asked: bool = False

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
    """Keeps as many sinks at work as are wanted. Of one thread: it starts processes that die with it.

    Attributes:
        env: Environment of the sinks.
        directory: Where logs and meetings go.
        wanted: How many sinks should be at work; those that sleep count.
        max_poll_ms: ``max.poll.interval.ms`` of each.
        sabotage: What is broken in each; empty for nothing.
        skews: Skew of the clock of each next sink, in seconds; none when they run out.
        trips: What happens to each next sink.
        members: The sinks at work.
        starts: How many were started.
        deaths: How they ended, each that was not asked to: exit code and last words.
        allowed: Words in the last line of a sink that may end with exit code 1.
    """

    env: Mapping[str, str]
    directory: Path
    wanted: int
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
        """Bury the dead, and start as many as are missing; one at a time."""
        for member in list(self.members):
            if member.process.poll() is not None:
                self._bury(member)
        if len(self.members) < self.wanted and time.monotonic() >= self._not_before:
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
        """The trips that happened, the last one of each sink."""
        return [file.read_text("utf-8") for file in sorted(self.directory.glob("tripped-*"))]

    def said(self) -> dict[str, int]:
        """How often the sinks said what."""
        text = "\n".join(log.read_text("utf-8", "replace") for log in self.directory.glob("sink-*.log"))
        return {words: count for words in _TELLING if (count := text.count(words))}

    def met(self) -> Path | None:
        """A sink that waits for us to act; it goes on when the file is removed."""
        return next(iter(self.directory.glob("met-*")), None)

    def asleep(self) -> list[Member]:
        """The sinks that were stopped by a signal."""
        return [member for member in self.members if member.is_asleep]

    def wake(self) -> None:
        """Let every sink go on."""
        for member in self.members:
            member.process.send_signal(signal.SIGCONT)

    def kill(self, member: Member) -> None:
        """End one by SIGKILL."""
        member.asked = True
        member.process.kill()

    def dismiss(self, member: Member) -> None:
        """Ask one to finish what it has in hand and stop; does not wait."""
        if not member.asked:
            member.asked = True
            member.process.send_signal(signal.SIGTERM)

    def dump(self) -> None:
        """Have every sink write the stacks of its threads to its log."""
        self.wake()
        for member in self.members:
            member.process.send_signal(signal.SIGUSR1)
        time.sleep(_DUMP_SECONDS)

    def kill_all(self) -> None:
        """End all by SIGKILL, and wait."""
        self.wanted = 0
        for member in self.members:
            member.process.kill()
        for member in self.members:
            member.process.wait()
        self.members.clear()

    def _bury(self, member: Member) -> None:
        self.members.remove(member)
        self._not_before = time.monotonic() + _RESTART_SECONDS
        code = member.process.returncode
        # One that is asked to stop before it has come to listen for it ends by the signal itself.
        expected = {-signal.SIGKILL, -signal.SIGTERM, 0} if member.asked else {-signal.SIGKILL}
        if code in expected:
            return
        lines = member.log.read_text("utf-8", "replace").splitlines()
        last = lines[-1] if lines else ""
        if code == 1 and any(words in last for words in self.allowed):
            return
        self.deaths.append(f"{member.log.name} ended with {code}: {last}")
