"""Apache Kafka from Maven Central as local processes, for tests: KRaft mode, no Docker.

It needs Java 17 or later. Maven fetches the jars once, into ``tests/support/kafka/target``.
"""

import base64
import fcntl
import hashlib
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from auditstream_local.endpoints import kafka_fault
from auditstream_local.server import HOST, Server, free_ports, stop_all, with_lifeline
from auditstream_schemas.errors import OperationError

PROJECT = Path(__file__).resolve().parent / "kafka"
_LIB = PROJECT / "target" / "lib"
_START_SECONDS = 60.0
_BUILD_SECONDS = 600
# A quick start and a small heap. A broker of a test ends before the optimising compiler would help.
_JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def missing_tools() -> list[str]:
    """The programs that a broker needs and this machine lacks."""
    missing = [] if shutil.which("java") else ["java (17 or later)"]
    if not _is_fetched() and not shutil.which("mvn"):
        missing.append("mvn, to fetch Kafka from Maven Central")
    return missing


def fetch_jars() -> None:
    """Fetch Kafka's jars with Maven, unless they are present. Blocks up to 10 minutes, usually seconds.

    Raises:
        OperationError: Maven failed, or a program is missing.
    """
    if missing := missing_tools():
        raise OperationError(f"Apache Kafka needs {', '.join(missing)}")
    _LIB.parent.mkdir(parents=True, exist_ok=True)
    with (_LIB.parent / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_fetched():
            return
        shutil.rmtree(_LIB, ignore_errors=True)
        try:
            maven = subprocess.run(
                ["mvn", "-q", "-B", "-f", str(PROJECT / "pom.xml"), "package"],
                capture_output=True,
                text=True,
                timeout=_BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OperationError("Maven did not fetch Kafka within 10 minutes: is Maven Central reached?") from error
        if maven.returncode != 0:
            raise OperationError(f"Maven could not fetch Kafka:\n{(maven.stdout + maven.stderr)[-2000:]}")
        _marker().write_text(_project_hash(), "utf-8")


class KafkaCluster:
    """Brokers that are also controllers, as a context manager: they answer on entry and are killed on exit.

    Enter it from a thread that outlives it: the brokers die with the thread that started them.

    Attributes:
        bootstrap_servers: Addresses of the brokers; the same after a restart.
        relayed: Port of each broker's second listener, to which the caller's proxy leads.
        brokers: The processes, in the order of their node ids, which count from 1.
    """

    def __init__(
        self,
        directory: Path,
        *,
        brokers: int = 1,
        relays: Sequence[int] = (),
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Choose the ports; nothing is started yet.

        Args:
            directory: Directory of configuration, data and logs. Data of an earlier run are deleted.
            brokers: Number of brokers; internal topics have three replicas at most.
            relays: For each broker, the port of a proxy of the caller. Each broker then has a second listener that
                advertises the proxy's port, so that a client that connects through the proxy stays behind it.
            settings: More broker settings.
        """
        self._directory = directory.absolute()
        ports = free_ports(2 * brokers + len(relays))
        listeners = list(zip(ports[:brokers], ports[brokers : 2 * brokers], strict=True))
        self.bootstrap_servers = ",".join(f"{HOST}:{port}" for port, _controller in listeners)
        self.relayed = tuple(ports[2 * brokers :])
        behind = dict(enumerate(zip(self.relayed, relays, strict=True), start=1))
        self._properties = [
            _server_properties(node, listeners, self._home(node), behind.get(node), settings or {})
            for node in range(1, brokers + 1)
        ]
        self.brokers = tuple(
            Server(
                f"kafka-{node}",
                _java("kafka.Kafka", str(self._home(node) / "server.properties")),
                self._directory / "logs" / f"kafka-{node}.log",
                partial(kafka_fault, f"{HOST}:{port}"),
                # Its data are not needed, and a controlled shutdown takes seconds.
                stop_signal=signal.SIGKILL,
            )
            for node, (port, _controller) in enumerate(listeners, start=1)
        )

    def __enter__(self) -> Self:
        """Format the storage, start the brokers, and block until each answers, 60 seconds at most.

        Raises:
            OperationError: The jars cannot be fetched, or a broker ended or does not answer.
        """
        fetch_jars()
        # With the first bit cleared it cannot begin with "-", which the tool would read as an option.
        cluster_id = base64.urlsafe_b64encode((uuid.uuid4().int >> 1).to_bytes(16)).decode().rstrip("=")
        for node, properties in enumerate(self._properties, start=1):
            home = self._home(node)
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            (home / "server.properties").write_text(properties, "utf-8")
            _format(home / "server.properties", cluster_id)
        try:
            self.start(self.brokers)
        except BaseException:
            stop_all(self.brokers)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill the brokers."""
        stop_all(self.brokers)

    def start(self, brokers: Sequence[Server]) -> None:
        """Start brokers, on the data they had before if any, and block until each answers.

        Raises:
            OperationError: A broker ended, or does not answer within 60 seconds.
        """
        deadline = time.monotonic() + _START_SECONDS
        for broker in brokers:
            broker.start()
        for broker in brokers:
            broker.wait_until_answering(deadline)

    def _home(self, node: int) -> Path:
        return self._directory / f"kafka-{node}"


def _server_properties(
    node: int,
    listeners: Sequence[tuple[int, int]],
    home: Path,
    behind: tuple[int, int] | None,
    more: Mapping[str, object],
) -> str:
    port, controller = listeners[node - 1]
    second, advertised = ("", "") if behind is None else (f",RELAYED://{HOST}:{p}" for p in behind)
    replicas = min(3, len(listeners))
    voters = ",".join(f"{number}@{HOST}:{voter}" for number, (_, voter) in enumerate(listeners, start=1))
    settings = {
        "process.roles": "broker,controller",
        "node.id": node,
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}{second}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}{advertised}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,RELAYED:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": voters,
        "log.dirs": home / "data",
        "auto.create.topics.enable": "false",
        "delete.topic.enable": "true",
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 500,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": max(1, replicas - 1),
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": max(1, replicas - 1),
        "num.network.threads": 1,
        "num.io.threads": 2,
        # A killed broker can register again only after its session has expired.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        **more,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def _format(properties: Path, cluster_id: str) -> None:
    command = _java("kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config", str(properties))
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        raise OperationError(f"cannot format Kafka's storage:\n{(result.stdout + result.stderr)[-2000:]}")


def _java(main_class: str, *arguments: str) -> list[str]:
    return with_lifeline(
        "java",
        *_JVM,
        f"-Dlog4j2.configurationFile={PROJECT / 'log4j2.xml'}",
        *("-cp", f"{_LIB}/*"),
        main_class,
        *arguments,
    )


def _marker() -> Path:
    return _LIB / "fetched.sha256"


def _project_hash() -> str:
    return hashlib.sha256((PROJECT / "pom.xml").read_bytes()).hexdigest()


def _is_fetched() -> bool:
    try:
        return _marker().read_text("utf-8") == _project_hash()
    except FileNotFoundError:
        return False
