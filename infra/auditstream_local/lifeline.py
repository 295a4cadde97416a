"""End a process when its parent ends, also when the parent is killed by SIGKILL.

A Python child calls :func:`die_with_parent`. Any other program is started through this file; see `with_lifeline`.

On Linux the kernel does it (``PR_SET_PDEATHSIG``), and the command replaces this process, so it keeps the process id.
For the kernel, the parent is the *thread* that forked: a child started from a worker thread is killed when that
thread ends, even if its process lives on. Start children from a thread that outlives them, best the main thread.

On other systems (macOS) this module polls the parent's process id every :data:`POLL_S` seconds. The command is then a
child of a small process that forwards SIGTERM and SIGINT and ends with the command's exit code.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import click

POLL_S = 0.2
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int | None = None) -> None:
    """Arrange that this process is killed (SIGKILL) as soon as its parent ends. Does not block.

    The arrangement survives ``exec``. Children that this process forks do not inherit it.

    Args:
        parent_pid: Process id that the parent must have; by default the current parent's. Pass it if the parent may end
            before this call: if the parent has another id, this process is killed at once.

    Raises:
        OSError: The kernel refused to arm it.
    """
    expected = os.getppid() if parent_pid is None else parent_pid
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    else:
        threading.Thread(target=_poll_parent, args=(expected,), name="lifeline", daemon=True).start()
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def _poll_parent(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _supervise(command: tuple[str, ...], parent_pid: int) -> int:
    """Run a command as a child until it or the parent ends; return its exit code."""
    child = subprocess.Popen(command)  # noqa: S603 - running a given command is the purpose

    def forward(number: int, _frame: object) -> None:
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    while os.getppid() == parent_pid:
        try:
            code = child.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue
        return code if code >= 0 else 128 - code
    child.kill()
    return 128 + signal.SIGKILL


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--parent-pid", type=int, help="Process id that the parent must have; by default the current parent's.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(*, parent_pid: int | None, command: tuple[str, ...]) -> None:
    """Run COMMAND so that it ends when the process that started this one ends."""
    try:
        if sys.platform == "linux":
            die_with_parent(parent_pid)
            os.execvp(command[0], command)  # noqa: S606 - no shell is needed
        else:
            sys.exit(_supervise(command, os.getppid() if parent_pid is None else parent_pid))
    except OSError as error:
        click.echo(f"lifeline: cannot run {command[0]}: {error.strerror}", err=True)
        sys.exit(127)


if __name__ == "__main__":
    main()
