"""Runs a candidate in a process of its own, which reports its progress on standard output.

Each line is a JSON object with ``kind`` (``reading``: it has partitions and is about to fetch; ``commit``: the offsets
of a batch are committed; ``end``), ``at`` (seconds of CLOCK_MONOTONIC, which all processes share) and
``cpu`` (processor seconds of the process so far).
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from auditstream_local.server import with_lifeline
from auditstream_schemas.errors import OperationError

_REPOSITORY = Path(__file__).resolve().parents[2]


def say(kind: str, **more: object) -> None:
    """In the child: write one line."""
    line = {"kind": kind, "at": time.monotonic(), "cpu": time.process_time(), **more}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def peak_bytes() -> int:
    """In the child: its peak resident memory."""
    status = Path("/proc/self/status").read_text("utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One line of a child.

    Attributes:
        kind: ``reading``, ``commit`` or ``end``.
        at: Seconds of CLOCK_MONOTONIC.
        cpu: Processor seconds of the child until then.
        more: The other values of the line.
    """

    kind: str
    at: float
    cpu: float
    more: dict[str, Any] = field(default_factory=dict)


class Child:
    """The child process, for the parent; killed at the end of the block if it still runs."""

    def __init__(self, module: str, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        lifeline = with_lifeline()
        self._process = subprocess.Popen(
            [*lifeline, sys.executable, "-m", module, *arguments],
            cwd=_REPOSITORY,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._module = module
        self._lines: queue.Queue[Report | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def next(self, timeout: float) -> Report:
        """The next report; blocks.

        Raises:
            OperationError: It ended, or said nothing for so long.
        """
        said = self.poll(timeout)
        if said is None:
            raise OperationError(f"{self._module} said nothing for {timeout:.0f} s")
        return said

    def poll(self, timeout: float) -> Report | None:
        """The next report, or None after a timeout.

        Raises:
            OperationError: It ended.
        """
        try:
            said = self._lines.get(timeout=timeout)
        except queue.Empty:
            return None
        if said is None:
            raise OperationError(f"{self._module} ended with exit code {self._process.wait()}")
        return said

    def wait_for(self, kind: str, timeout: float) -> Report:
        """Skip reports until one is of this kind; ``timeout`` applies to each."""
        while (said := self.next(timeout)).kind != kind:
            pass
        return said

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            values = json.loads(line)
            self._lines.put(Report(kind=values.pop("kind"), at=values.pop("at"), cpu=values.pop("cpu"), more=values))
        self._lines.put(None)
