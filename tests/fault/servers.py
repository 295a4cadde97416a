"""The servers of a run: started when a schedule first needs them, shared by those that follow."""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from auditstream_local.endpoints import CLICKHOUSE, REGISTRY, Endpoints, clickhouse_fault
from auditstream_local.server import HOST, Server, free_ports, python_module
from auditstream_local.stack import LocalStack
from tests.support.fix_stack import DATABASES, local_stack
from tests.support.kafka_cluster import KafkaCluster
from tests.support.tcp_proxy import TcpProxy

SMALL_DISK_BYTES = 192 * 1024 * 1024
_START_SECONDS = 120.0

# A mount namespace of its own: no other process sees its mounts, and they end with the process.
_NAMESPACE = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--mount", "--propagation", "private")
_BROKER_SETTINGS = {
    # With KIP-848 the group sets these: as short as those of the classic sinks.
    "group.consumer.min.session.timeout.ms": 1000,
    "group.consumer.session.timeout.ms": 2500,
    "group.consumer.min.heartbeat.interval.ms": 100,
    "group.consumer.heartbeat.interval.ms": 300,
    # Deleted topics make room at once.
    "log.segment.delete.delay.ms": 1000,
    "unclean.leader.election.enable": "false",
}


class Brokers:
    """A cluster of real brokers, and a proxy in front of each.

    Attributes:
        cluster: The brokers.
        proxies: One for each broker. A client that starts at `relayed_servers` connects through them alone.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self.proxies = [TcpProxy(f"{HOST}:1") for _ in range(count)]
        self.cluster = KafkaCluster(
            directory, brokers=count, relays=[proxy.port for proxy in self.proxies], settings=_BROKER_SETTINGS
        )
        for proxy, port in zip(self.proxies, self.cluster.relayed, strict=True):
            proxy.forward_to(f"{HOST}:{port}")

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            for proxy in self.proxies:
                parts.enter_context(proxy)
            parts.enter_context(self.cluster)
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()

    @property
    def servers(self) -> str:
        """The brokers themselves."""
        return self.cluster.bootstrap_servers

    @property
    def relayed_servers(self) -> str:
        """The proxies."""
        return ",".join(proxy.address for proxy in self.proxies)


class Servers:
    """All of them, as a context manager. Use it from the main thread: the servers die with the one that started them.

    Args:
        directory: Where data and logs go.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._brokers: dict[int, Brokers] = {}
        self._stack: LocalStack | None = None
        self._small: Server | None = None
        self._small_url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for count in list(self._brokers):
            self._leave(count)
        if self._small is not None:
            self._small.kill()
        if self._stack is not None:
            self._stack.__exit__(None, None, None)

    def brokers(self, count: int) -> Brokers:
        """A cluster of so many brokers; one of another size is stopped. Blocks while it starts."""
        if count not in self._brokers:
            for other in list(self._brokers):
                self._leave(other)
            self._brokers[count] = Brokers(self._directory / f"kafka-of-{count}", count).__enter__()
        return self._brokers[count]

    def endpoints(self, brokers: Brokers, *, small_disk: bool) -> Endpoints:
        """Where everything is reached, proxies left aside. Blocks while it starts."""
        stack = self._local(brokers.servers)
        return Endpoints(
            bootstrap_servers=brokers.servers,
            registry_url=stack.endpoints.registry_url,
            clickhouse_url=self._small_clickhouse() if small_disk else stack.endpoints.clickhouse_url,
            # No fault meets the native protocol: nothing of ours uses it.
            clickhouse_tcp=stack.endpoints.clickhouse_tcp,
        )

    @property
    def registry(self) -> Server:
        """The registry stand-in."""
        return self._running_stack().server(REGISTRY)

    @property
    def clickhouse(self) -> Server:
        """ClickHouse, not the one with the small disk."""
        return self._running_stack().server(CLICKHOUSE)

    @property
    def small_disk(self) -> Path:
        """The small disk, as this process sees it. It goes away with its ClickHouse."""
        if self._small is None:
            raise LookupError("no ClickHouse with a small disk was started")
        return Path(f"/proc/{self._small.pid}/root{self._small_directory}")

    def mend(self, brokers: Brokers) -> None:
        """Bring back everything that a schedule killed and did not bring back. Blocks until all answer."""
        deadline = time.monotonic() + _START_SECONDS
        for proxy in brokers.proxies:
            proxy.heal()
        stack = self._running_stack()
        for server in (*brokers.cluster.brokers, *stack.servers):
            if server.ended() is not None:
                server.start()
            server.wait_until_answering(deadline)

    def _leave(self, count: int) -> None:
        self._brokers.pop(count).__exit__(None, None, None)
        shutil.rmtree(self._directory / f"kafka-of-{count}", ignore_errors=True)

    def _running_stack(self) -> LocalStack:
        if self._stack is None:
            raise LookupError("no stack was started")
        return self._stack

    def _local(self, bootstrap_servers: str) -> LocalStack:
        if self._stack is None:
            self._stack = local_stack(self._directory / "stack", bootstrap_servers).__enter__()
        return self._stack

    @property
    def _small_directory(self) -> Path:
        return (self._directory / "small").absolute()

    def _small_clickhouse(self) -> str:
        if self._small is None:
            self._small_directory.mkdir(parents=True)
            [port] = free_ports(1)
            self._small_url = f"http://{HOST}:{port}"
            self._small = Server(
                "small-clickhouse",
                _on_small_disk(self._small_directory, port),
                self._directory / "small.log",
                partial(clickhouse_fault, self._small_url),
            )
            self._small.start()
            self._small.wait_until_answering(time.monotonic() + _START_SECONDS)
        return self._small_url


def small_disk_fault() -> str | None:
    """Why no small disk can be mounted here, or None."""
    try:
        done = subprocess.run([*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    except OSError as error:
        return f"unshare: {error.strerror}"
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip()


def _on_small_disk(directory: Path, port: int) -> Sequence[str]:
    script = f'mount -t tmpfs -o size={SMALL_DISK_BYTES} auditstream-faults "$0" && exec "$@"'
    clickhouse = python_module(
        "auditstream_local.clickhouse",
        *("--data-dir", str(directory), "--port", str(port), "--parent-pid", str(os.getpid())),
        *(word for database in DATABASES for word in ("--database", database)),
    )
    return [*_NAMESPACE, "sh", "-c", script, str(directory), *clickhouse]


class Ballast:
    """A file that fills a disk."""

    def __init__(self, disk: Path, *, leave: int) -> None:
        """Make it, empty.

        Args:
            disk: Where.
            leave: Bytes to leave free.
        """
        self._file = disk / "ballast"
        self._disk = disk
        self._leave = leave

    def fill(self) -> None:
        """Write the ballast until the disk is full; a second call fills the space that was freed meanwhile."""
        disk = os.statvfs(self._disk)
        missing = disk.f_bavail * disk.f_frsize - self._leave
        if missing > 0:
            with self._file.open("ab", buffering=0) as output, suppress(OSError):
                output.write(b"\0" * missing)

    def drop(self) -> None:
        """Delete the ballast."""
        self._file.unlink(missing_ok=True)
