"""One server process of a local stack: started with a log file, watched, stopped."""

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
_PROBE_SECONDS = 2.0
_POLL_SECONDS = 0.05
_TAIL_LINES = 15
# Below the range from which the kernel takes the ports of outgoing connections.
_FREE_PORTS = range(20_000, 32_000)

Probe = Callable[[float], str | None]


class Server:
    """One server process. Start it from a thread that lives as long as the server should.

    Attributes:
        name: What messages call it.
        command: Program and arguments.
        log: File that its output is added to.
        probe: Called with seconds to wait, returns what is wrong with the server, or None.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        probe: Probe,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Describe the server; nothing is started yet.

        Args:
            name: What messages call it.
            command: Program and arguments; it must die with its parent by itself.
            log: File that its output is added to; its directory is made if missing.
            probe: Tells what is wrong with the server.
            stop_signal: What asks it to stop; SIGKILL for one that has nothing to keep.
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
                    # Ctrl-C at the terminal is for us: we stop the servers, in order.
                    process_group=0,
                )
            except OSError as error:
                raise OperationError(f"cannot run {self.name} ({self.command[0]}): {error.strerror}") from error

    def ended(self) -> int | None:
        """Exit code if the process has ended by itself or was stopped, else None."""
        return None if self._process is None else self._process.poll()

    def wait_until_well(self, deadline: float) -> None:
        """Block until the server answers its probe.

        Args:
            deadline: Time of ``time.monotonic()`` at which to give up.

        Raises:
            OperationError: The process ended, or did not answer in time; with the last lines of its log.
        """
        while True:
            if self.ended() is not None:
                raise OperationError(self.obituary())
            fault = self.probe(_PROBE_SECONDS)
            if fault is None:
                return
            if time.monotonic() >= deadline:
                raise OperationError(f"{self.name} does not answer in time: {fault}\n{self.tail()}".rstrip())
            time.sleep(_POLL_SECONDS)

    def obituary(self) -> str:
        """Say that the process ended, how, and the last lines of its log."""
        code = self.ended()
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        return f"{self.name} (process {self.pid}) ended {how}; its log is {self.log}\n{self.tail()}".rstrip()

    def tail(self) -> str:
        """Return the last lines that this start added to the log, indented."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])

    def terminate(self) -> None:
        """Ask the process to stop; does not wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self._stop_signal)

    def stop(self, deadline: float | None = None) -> None:
        """Ask the process to stop, wait, and kill it if it is still there at the deadline.

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
        """End the process by SIGKILL and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def stop_all(servers: Sequence[Server]) -> None:
    """Stop servers side by side within one deadline of 15 seconds."""
    deadline = time.monotonic() + STOP_SECONDS
    for server in servers:
        server.terminate()
    for server in servers:
        server.stop(deadline)


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of ours, whatever the working directory holds."""
    return [sys.executable, "-P", "-m", module, *arguments]


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback interface that nobody listens on.

    Raises:
        OperationError: Not as many were found.
    """
    found: list[int] = []
    for port in random.sample(_FREE_PORTS, 500):
        if len(found) == count:
            return found
        if port_is_free(port):
            found.append(port)
    raise OperationError(f"no free ports found from {_FREE_PORTS.start} to {_FREE_PORTS.stop - 1}")
