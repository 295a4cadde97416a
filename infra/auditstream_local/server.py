"""One server process of a local stack: start with a log file, wait until it answers, stop."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from auditstream_schemas.errors import OperationError

HOST = "127.0.0.1"
STOP_SECONDS = 15.0
_LIFELINE = Path(__file__).with_name("lifeline.py")
_PROBE_SECONDS = 2.0
_POLL_SECONDS = 0.05
_TAIL_LINES = 15
# Below the range from which the kernel chooses ports of outgoing connections.
_FREE_PORTS = range(20_000, 32_000)

Probe = Callable[[float], str | None]


class Server:
    """One server process. Start it from a thread that outlives the server."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        probe: Probe,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Prepare the server; nothing is started yet.

        Args:
            name: Name in messages.
            command: Program and arguments. It must end with its parent by itself.
            log: File to which its output is appended; its directory is made if missing.
            probe: Called with seconds to wait; returns the fault of the server, or None if it answers.
            stop_signal: Signal that stops it; SIGKILL for a server without data worth keeping.
        """
        self.name = name
        self.log = log
        self.probe = probe
        self.command = tuple(command)
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        if self._process is None:
            raise OperationError(f"{self.name} was never started")
        return self._process.pid

    def start(self) -> None:
        """Start the process; does not wait until it answers.

        Raises:
            OperationError: The program cannot be run.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own command line
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C at the terminal must reach this process only, which then stops the servers.
                    process_group=0,
                )
            except OSError as error:
                raise OperationError(f"cannot run {self.name} ({self.command[0]}): {error.strerror}") from error

    def ended(self) -> int | None:
        """Exit code if the process has ended, else None."""
        return None if self._process is None else self._process.poll()

    def wait_until_answering(self, deadline: float) -> None:
        """Block until the server answers its probe.

        Args:
            deadline: Time of ``time.monotonic()`` at which to stop waiting.

        Raises:
            OperationError: The process ended, or did not answer in time. The message has the last lines of its log.
        """
        while True:
            if self.ended() is not None:
                raise OperationError(self.end_message())
            fault = self.probe(_PROBE_SECONDS)
            if fault is None:
                return
            if time.monotonic() >= deadline:
                raise OperationError(f"{self.name} does not answer in time: {fault}\n{self.log_tail()}".rstrip())
            time.sleep(_POLL_SECONDS)

    def end_message(self) -> str:
        """A message about how the process ended, with the last lines of its log."""
        code = self.ended()
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        return f"{self.name} (process {self.pid}) ended {how}; its log is {self.log}\n{self.log_tail()}".rstrip()

    def log_tail(self) -> str:
        """Return the last lines of the log since this start, indented."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])

    def terminate(self) -> None:
        """Send the stop signal; does not wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self._stop_signal)

    def stop(self, deadline: float | None = None) -> None:
        """Send the stop signal, wait, and kill the process if it still runs at the deadline.

        Args:
            deadline: Time of ``time.monotonic()``; by default 15 seconds from now.
        """
        if self._process is None:
            return
        self.terminate()
        until = time.monotonic() + STOP_SECONDS if deadline is None else deadline
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process (SIGKILL) and wait until it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def stop_all(servers: Sequence[Server]) -> None:
    """Stop all servers at the same time, within 15 seconds."""
    deadline = time.monotonic() + STOP_SECONDS
    for server in servers:
        server.terminate()
    for server in servers:
        server.stop(deadline)


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs one of our modules. ``-P`` ignores modules in the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


def with_lifeline(*command: str) -> list[str]:
    """The command line of a program that ends when this process ends."""
    # By its path: as a module it would import the package, whose libraries a lifeline does not need.
    return [sys.executable, "-P", str(_LIFELINE), "--parent-pid", str(os.getpid()), "--", *command]


def port_is_free(port: int) -> bool:
    """Whether this port of the loopback interface is free now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return different free ports of the loopback interface. Another process may take one before the caller does.

    Raises:
        OperationError: There are not enough free ports.
    """
    ports: list[int] = []
    for port in random.sample(_FREE_PORTS, 500):
        if len(ports) == count:
            return ports
        if port_is_free(port):
            ports.append(port)
    raise OperationError(f"not enough free ports from {_FREE_PORTS.start} to {_FREE_PORTS.stop - 1}")
