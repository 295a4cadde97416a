"""A local stack that outlives the command that started it.

A supervisor process starts the servers and locks a file in the data directory; the kernel releases the lock however the
process ends. It writes its process id and the servers' addresses into a state file. When one server ends, it stops the
others and ends.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from auditstream_local.endpoints import Endpoints
from auditstream_local.server import STOP_SECONDS, python_module
from auditstream_local.stack import START_SECONDS, LocalStack, Ports
from auditstream_schemas.errors import OperationError

_LOCK_NAME = "stack.lock"
_STATE_NAME = "stack.json"
_SUPERVISOR_LOG = "supervisor.log"
_POLL_SECONDS = 0.1
# Checking the lock takes it for an instant, so a failed attempt is repeated for so long.
_CLAIM_SECONDS = 2.0

EXIT_ALREADY_UP = 3
"""Exit code of a supervisor that finds another one in its data directory."""


class AlreadyUpError(OperationError):
    """The data directory's stack is up, or being started or stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStack:
    """A stack that is up or about to be.

    Attributes:
        pid: Process id of the supervisor.
        started: Start time of that process, in the system's own notation. With the pid it identifies the process.
        endpoints: Addresses of its servers.
        ready: Whether all of them have answered.
    """

    pid: int
    started: str
    endpoints: Endpoints
    ready: bool


def running(data_dir: Path) -> RunningStack | None:
    """Return the stack that runs in a data directory, or None. Blocks 2 seconds at most.

    Raises:
        AlreadyUpError: A supervisor has the lock, but its state file is not valid yet.
    """
    deadline = time.monotonic() + _CLAIM_SECONDS
    while _is_locked(data_dir):
        stack = _read_state(data_dir)
        if stack is not None and _start_time(stack.pid) == stack.started:
            return stack
        if time.monotonic() >= deadline:
            raise AlreadyUpError(f"the stack of {data_dir} is just being started or stopped: try again")
        time.sleep(_POLL_SECONDS)
    return None


def wait_until_ready(data_dir: Path) -> RunningStack:
    """Block until a stack that another process is starting is ready, 75 seconds at most.

    Raises:
        OperationError: It ended, or is not ready in time.
    """
    deadline = time.monotonic() + START_SECONDS + STOP_SECONDS
    while time.monotonic() < deadline:
        stack = running(data_dir)
        if stack is None:
            raise OperationError(f"the stack of {data_dir} did not come up. {last_error(data_dir)}".rstrip())
        if stack.ready:
            return stack
        time.sleep(_POLL_SECONDS)
    raise OperationError(f"the stack of {data_dir} did not come up in time, see {data_dir / 'logs'}")


def supervise(data_dir: Path, ports: Ports, announce: Callable[[RunningStack], None]) -> None:
    """Run a stack in this process: blocks until SIGTERM, SIGINT or SIGHUP, or until a server dies.

    Call it from the main thread.

    Args:
        data_dir: Directory of data, logs, lock and state.
        ports: Ports of the servers.
        announce: Called once, when every server has answered.

    Raises:
        AlreadyUpError: A stack runs in the data directory.
        OperationError: A server could not be started, or ended; the others are stopped.
    """
    with contextlib.suppress(KeyboardInterrupt), _signals_interrupt(), _claimed(data_dir):
        log = data_dir / "logs" / _SUPERVISOR_LOG
        if log.exists():
            os.truncate(log, 0)
        stack = LocalStack(data_dir, ports=ports)
        state = RunningStack(pid=os.getpid(), started=_start_time(os.getpid()), endpoints=stack.endpoints, ready=False)
        _write_state(data_dir, state)
        try:
            with stack:
                state = replace(state, endpoints=stack.endpoints, ready=True)
                _write_state(data_dir, state)
                announce(state)
                while True:
                    stack.raise_if_ended()
                    time.sleep(_POLL_SECONDS)
        finally:
            (data_dir / _STATE_NAME).unlink(missing_ok=True)


def start_detached(data_dir: Path, ports: Ports) -> RunningStack:
    """Start a supervisor that outlives this process; block until its servers answer.

    Raises:
        AlreadyUpError: A stack runs in the data directory.
        OperationError: It did not start. The message is the supervisor's own.
    """
    log = data_dir / "logs" / _SUPERVISOR_LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = ("--data-dir", str(data_dir.absolute()), "--ports", json.dumps(asdict(ports)))
    command = python_module("auditstream_local", *arguments)
    with log.open("ab") as output:
        supervisor = subprocess.Popen(  # noqa: S603 - our own command line
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        stack = _wait_until_started(supervisor, data_dir)
    except BaseException:
        supervisor.terminate()
        raise
    # The supervisor outlives this process. With a return code, Popen does not warn about a running child.
    supervisor.returncode = 0
    return stack


def stop_running(stack: RunningStack, data_dir: Path) -> None:
    """Stop a stack's supervisor and block until it has ended.

    Raises:
        OperationError: It had to be killed. Its servers were killed with it.
    """
    _signal(stack, signal.SIGTERM)
    if _is_released(data_dir, STOP_SECONDS + 5.0):
        return
    _signal(stack, signal.SIGKILL)
    if not _is_released(data_dir, 5.0):
        raise OperationError(f"process {stack.pid} does not end, though killed: look at it with ps")
    raise OperationError(f"the supervisor (process {stack.pid}) did not stop in time and was killed")


def last_error(data_dir: Path) -> str:
    """Error message of the last detached supervisor; empty if it ended without one."""
    try:
        text = (data_dir / "logs" / _SUPERVISOR_LOG).read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return text.strip()


def _wait_until_started(supervisor: subprocess.Popen[bytes], data_dir: Path) -> RunningStack:
    deadline = time.monotonic() + START_SECONDS + STOP_SECONDS
    while time.monotonic() < deadline:
        code = supervisor.poll()
        if code == EXIT_ALREADY_UP:
            raise AlreadyUpError(f"the stack of {data_dir} is up already")
        if code is not None:
            raise OperationError(last_error(data_dir) or "the supervisor ended without a message")
        stack = _read_state(data_dir)
        if stack is not None and stack.pid == supervisor.pid and stack.ready:
            return stack
        time.sleep(_POLL_SECONDS)
    raise OperationError(f"the stack did not come up in time, see {data_dir / 'logs'}")


@contextlib.contextmanager
def _claimed(data_dir: Path) -> Iterator[None]:
    data_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _CLAIM_SECONDS
    with (data_dir / _LOCK_NAME).open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise AlreadyUpError(f"the stack of {data_dir} is up already") from None
                time.sleep(_POLL_SECONDS)
            else:
                break
        yield


def _is_locked(data_dir: Path) -> bool:
    try:
        with (data_dir / _LOCK_NAME).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _is_released(data_dir: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _is_locked(data_dir):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt too, unless they are ignored (nohup)."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(stack: RunningStack, number: signal.Signals) -> None:
    if _start_time(stack.pid) == stack.started:
        os.kill(stack.pid, number)


def _start_time(pid: int) -> str:
    """Start time of a process, in the system's own notation; empty if there is no such process."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
        # The second field is the program's name in parentheses, which may contain spaces.
        return stat.rpartition(")")[2].split()[19]
    else:  # noqa: RET505 - with else, type checkers see that this is for other platforms
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def _read_state(data_dir: Path) -> RunningStack | None:
    try:
        state = json.loads((data_dir / _STATE_NAME).read_text("utf-8"))
        return RunningStack(**{**state, "endpoints": Endpoints(**state["endpoints"])})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _write_state(data_dir: Path, state: RunningStack) -> None:
    partial = data_dir / f"{_STATE_NAME}.part"
    partial.write_text(json.dumps(asdict(state)), "utf-8")
    partial.replace(data_dir / _STATE_NAME)
