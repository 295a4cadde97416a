import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil
import pytest

from tests.support.waiting import eventually

LIFELINE = [sys.executable, "-m", "auditstream_local.lifeline"]
# The form for systems whose kernel does not end a process with its parent.
SUPERVISED = [
    sys.executable,
    "-c",
    (
        "import os, sys; from auditstream_local.lifeline import _supervise;"
        "sys.exit(_supervise(tuple(sys.argv[2:]), os.getppid()))"
    ),
]
KINDS = pytest.mark.parametrize("lifeline", [LIFELINE, SUPERVISED], ids=["kernel", "poll"])


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@KINDS
def test_a_command_dies_with_the_parent_of_the_lifeline(lifeline: Sequence[str]) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline(), end='', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    started = [sys.executable, "-c", program, *lifeline, "--", sys.executable, "-c", command]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        eventually(lambda: has_ended(process), "the command has ended")


@KINDS
def test_output_and_exit_code_of_the_command_are_forwarded(lifeline: Sequence[str]) -> None:
    command = "import sys; print('out'); sys.exit(7)"
    result = subprocess.run([*lifeline, "--", sys.executable, "-c", command], capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (7, b"out\n")


@KINDS
def test_a_request_to_stop_reaches_the_command(lifeline: Sequence[str]) -> None:
    command = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([*lifeline, "--", sys.executable, "-c", command], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(20) == 3


def test_a_command_that_cannot_be_run_is_named() -> None:
    result = subprocess.run([*LIFELINE, "--", "/no/such/command"], capture_output=True, text=True, check=False)
    assert result.returncode == 127
    assert result.stderr == "lifeline: cannot run /no/such/command: No such file or directory\n"


def test_a_command_whose_parent_has_ended_is_not_run() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    result = subprocess.run(
        [*LIFELINE, "--parent-pid", str(ended.pid), "--", "echo", "alive"], capture_output=True, check=False
    )
    assert (result.returncode, result.stdout) == (-signal.SIGKILL, b"")
