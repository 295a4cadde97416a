"""Make a process die with its parent, also when the parent is killed by SIGKILL.

A Python child calls :func:`die_with_parent`. Any other program is started through this module::

    python -m auditstream_local.lifeline --parent-pid $$ -- tansu broker ...

On Linux the kernel does it (``PR_SET_PDEATHSIG``), and the command replaces this process: it has the very
process id that the parent started. The kernel's notion of "parent" is the *thread* that forked: a child that
was started from a worker thread dies when that thread ends, even if its process lives on. So start
children from a thread that lives as long as they should, the main thread at best.

Elsewhere (macOS) a poll of the parent's process id does it, within :data:`POLL_S`; the command is then a
child of a small process that hands on SIGTERM and SIGINT and ends with the command's exit code.
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
    """Have this process killed (SIGKILL) as soon as its parent is gone. Does not block.

    It holds across ``exec``, but not for children that this process forks.

    Args:
        parent_pid: Process id that the parent must have. If the parent may die before this call, only its
            own word tells a dead parent from one that is process 1; a parent that is gone already ends
            this process at once.

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
    """Run a command as a child until it ends or the parent is gone; return its exit code."""
    child = subprocess.Popen(command)  # noqa: S603 - the command line is what we are asked to run

    def hand_on(number: int, _frame: object) -> None:
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    while os.getppid() == parent_pid:
        try:
            code = child.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue
        return code if code >= 0 else 128 - code
    child.kill()
    return 128 + signal.SIGKILL


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--parent-pid", type=int, help="Process id that the parent must have; by default the one found.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(*, parent_pid: int | None, command: tuple[str, ...]) -> None:
    """Run COMMAND so that it dies with the process that started this one."""
    try:
        if sys.platform == "linux":
            die_with_parent(parent_pid)
            os.execvp(command[0], command)  # noqa: S606 - no shell wanted
        else:
            sys.exit(_supervise(command, os.getppid() if parent_pid is None else parent_pid))
    except OSError as error:
        click.echo(f"lifeline: cannot run {command[0]}: {error.strerror}", err=True)
        sys.exit(127)


if __name__ == "__main__":
    main()
