"""ClickHouse for development and tests: the real engine (chDB) behind ClickHouse's HTTP protocol.

::

    python -m auditstream_local.clickhouse --data-dir DIR --port 8123

It serves what clickhouse-connect, curl and the like need: queries in the URL, in the body or in a multipart
form, parameters, settings, inserts of any size, external tables, compression both ways (gzip, deflate, zstd,
lz4), results of any size in every output format, ClickHouse's error codes, and an exception in the middle of
a result told the way ClickHouse 25.11 and later do. A client that goes away ends its query; one that goes
away in the middle of an insert's body has inserted nothing. An insert that was acknowledged survives a
SIGKILL of this process.

It is no server for production. It does not do, and says so when asked:

- users, roles, row policies: there is one user, and at most a password;
- sessions: ``SET``, ``USE`` and temporary tables would last for one request;
- clusters, replication, the native protocol, TLS;
- ClickHouse's own block compression (``compress=1``), ``input()``, ``role=``.

A query's id is the engine's own; the client's is kept as ``log_comment``, and ``KILL QUERY WHERE query_id =``
finds it there. ``client_protocol_version`` is ignored: results are as for clients that give none.
"""

import logging
import os
import signal
import socket
import sys
from pathlib import Path

import click
import uvicorn

from auditstream_local.clickhouse_body import Spool
from auditstream_local.clickhouse_engine import Engine
from auditstream_local.clickhouse_front import Front
from auditstream_local.lifeline import die_with_parent
from auditstream_schemas.errors import OperationError

_STOP_SECONDS = 5
_IDLE_SECONDS = 600
_HEAD_BYTES = 2 * 1024 * 1024
_CUT_ON_PURPOSE = "ASGI callable returned without completing response."


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        click.echo(f"clickhouse {self._url}")


@click.command()
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the data are kept."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8123, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--password",
    envvar="AUDITSTREAM_CLICKHOUSE_PASSWORD",
    help="Ask every request for this password.",
    show_envvar=True,
)
@click.option("--lifeline/--no-lifeline", default=True, show_default=True, help="End when the parent process ends.")
@click.option("--parent-pid", type=int, help="Process to end with; by default the one that started this.")
@click.option("--debug", is_flag=True, help="Log each query's id and duration.")
def main(
    *, data_dir: Path, port: int, host: str, password: str | None, lifeline: bool, parent_pid: int | None, debug: bool
) -> None:
    """Serve ClickHouse's HTTP protocol over a data directory, until SIGTERM or SIGINT."""
    if lifeline:
        die_with_parent(parent_pid)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("auditstream.clickhouse").setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.getMessage() != _CUT_ON_PURPOSE)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        listener = _listen(host, port)
        front = Front(Engine(data_dir), Spool(data_dir), password or None)
    except OperationError as error:
        click.echo(f"clickhouse: {error}", err=True)
        sys.exit(1)
    config = uvicorn.Config(
        front,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )
    # The server stops by its own handlers, then raises the signal again: the exit code is to be 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    name = f"[{host}]" if ":" in host else host
    _Server(config, f"http://{name}:{listener.getsockname()[1]}").run([listener])
    if not front.close(_STOP_SECONDS):
        # A thread of the engine that does not end would keep the process for ever.
        os._exit(1)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol asyncio leaves Nagle's algorithm on, and every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise OperationError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another port") from error
    return listener


if __name__ == "__main__":
    main()
