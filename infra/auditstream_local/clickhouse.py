"""ClickHouse for development and tests: the server that the chdb-core wheel contains, in a process of its own.

::

    python -m auditstream_local.clickhouse --data-dir DIR --port 8123 --tcp-port 9000

It is the real ClickHouse server: HTTP and native protocol, users, grants, row policies, every format. It listens on
127.0.0.1 only. An insert that was acknowledged survives a SIGKILL of this process.

Limits of the wheel: users come from ``users.xml`` only (``CREATE USER`` fails), a change of that file needs a restart,
there is no server log, and replicated tables stay read-only.
"""

import fcntl
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import click

from auditstream_local.clickhouse_config import write_config
from auditstream_local.lifeline import die_with_parent
from auditstream_local.server import free_ports
from auditstream_schemas.extras import install_hint

STATEMENT = (
    "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
    # A query that does not end keeps the engine up. It wakes once a second.
    "SELECT sleepEachRow(1) FROM system.numbers "
    "SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 FORMAT Null"
)


@click.command()
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory of the data."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8123, show_default=True, help="HTTP; 0 for a free port.")
@click.option("--tcp-port", type=click.IntRange(0, 65535), default=0, help="Native protocol; 0 for a free port.")
@click.option(
    "--database",
    "databases",
    multiple=True,
    default=["audit"],
    show_default=True,
    help="Database in which the users of auditstream's parts have their rights; can be repeated.",
)
@click.option("--parent-pid", type=int, help="Process to end with; by default the one that started this.")
def main(*, data_dir: Path, port: int, tcp_port: int, databases: tuple[str, ...], parent_pid: int | None) -> None:
    """Serve ClickHouse on 127.0.0.1 until SIGTERM or SIGINT."""
    die_with_parent(parent_pid)
    # The engine reads the time zone when it is loaded.
    os.environ["TZ"] = "UTC"
    try:
        from chdb import _chdb  # noqa: PLC0415 - 530 MB, loaded by this process alone
    except ImportError:
        _fail(f"the local ClickHouse needs chdb-core: {install_hint('local')}")
    free = free_ports(2)
    directory = data_dir.resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write_config(directory, http_port=port or free[0], tcp_port=tcp_port or free[1], databases=databases)
        # The engine reads ./config.xml when it starts.
        os.chdir(directory)
    except BlockingIOError:
        _fail(f"another ClickHouse uses the data directory {data_dir}: stop it, or choose another directory")
    except OSError as error:
        _fail(f"cannot use the data directory {data_dir}: {error.strerror}; choose another directory")
    click.echo(f"clickhouse http://127.0.0.1:{port or free[0]} 127.0.0.1:{tcp_port or free[1]}")
    # Blocked before the engine starts its threads, which inherit this: the signals reach sigwait alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    threading.Thread(target=_serve, args=(vars(_chdb)["query"], str(directory / "engine")), daemon=True).start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    # Acknowledged rows are on disk already, so there is nothing to wait for.
    os._exit(0)


def _serve(query: Callable[..., object], path: str) -> None:
    """Run the engine; ends this process if the engine ends."""
    try:
        query(STATEMENT, "TSV", path=path)
        reason = "it has written its error to the line above"
    except Exception as error:  # noqa: BLE001 - reported, and the end of the process
        reason = str(error)
    _fail(f"ClickHouse of chdb-core {version('chdb-core')} stopped: {reason}")


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"clickhouse: {message}\n")
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
