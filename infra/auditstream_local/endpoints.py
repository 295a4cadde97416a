"""Addresses of a stack's servers, and checks whether the servers answer."""

import socket
from dataclasses import dataclass

import urllib3
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from auditstream_schemas.settings import KafkaSettings

KAFKA = "kafka"
REGISTRY = "registry"
CLICKHOUSE = "clickhouse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Addresses of a stack's servers.

    Attributes:
        bootstrap_servers: Kafka brokers, ``host:port``, separated by commas.
        registry_url: Base URL of the schema registry.
        clickhouse_url: Base URL of ClickHouse's HTTP interface.
        clickhouse_tcp: Address of ClickHouse's native protocol, ``host:port``.
    """

    bootstrap_servers: str
    registry_url: str
    clickhouse_url: str
    clickhouse_tcp: str

    def env(self) -> dict[str, str]:
        """The environment variables with which every auditstream command uses this stack."""
        return {
            "AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "AUDITSTREAM_SCHEMA_REGISTRY_URL": self.registry_url,
            "AUDITSTREAM_CLICKHOUSE_URL": self.clickhouse_url,
            # For native clients; auditstream itself uses HTTP.
            "AUDITSTREAM_CLICKHOUSE_TCP": self.clickhouse_tcp,
            # Tansu makes a new member of a group wait for half of the session time-out: 23 seconds by default.
            "AUDITSTREAM_SESSION_TIMEOUT_MS": "6000",
            # Everybody on this machine may sign in. The page refuses this value if ClickHouse is on another machine.
            "AUDITSTREAM_ADMIN_SIGN_IN": "development",
        }

    def probe(self, timeout: float) -> "list[ServerStatus]":
        """Send each server a request; blocks up to ``timeout`` seconds for each, twice that for Kafka."""
        probes = (
            (KAFKA, self.bootstrap_servers, kafka_fault),
            (REGISTRY, self.registry_url, registry_fault),
            (CLICKHOUSE, self.clickhouse_url, clickhouse_fault),
        )
        return [
            ServerStatus(name=name, endpoint=endpoint, fault=fault(endpoint, timeout))
            for name, endpoint, fault in probes
        ]

    def env_lines(self) -> str:
        """The variables as ``NAME=value`` lines, for ``export $(...)`` and for env files."""
        return "\n".join(f"{name}={value}" for name, value in self.env().items())


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """The answer of one server of a stack.

    Attributes:
        name: ``kafka``, ``registry`` or ``clickhouse``.
        endpoint: Its address.
        fault: Why it does not answer; None if it does.
    """

    name: str
    endpoint: str
    fault: str | None


def kafka_fault(bootstrap_servers: str, timeout: float) -> str | None:
    """Request the cluster's metadata; return the error, or None. Blocks up to twice ``timeout`` seconds."""
    host, _, port = bootstrap_servers.partition(",")[0].rpartition(":")
    try:
        # Reports a refused connection at once. librdkafka would retry until its time-out.
        socket.create_connection((host, int(port)), timeout).close()
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    settings = KafkaSettings(kafka_bootstrap_servers=bootstrap_servers)
    admin = AdminClient({**settings.librdkafka_client("health"), "log_level": 0})
    try:
        metadata = admin.list_topics(timeout=timeout)
    except KafkaException as error:
        return str(error.args[0].str())
    return None if metadata.brokers else "no broker in the cluster's metadata"


def registry_fault(url: str, timeout: float) -> str | None:
    """Request the list of subjects; return the error, or None. Blocks up to ``timeout`` seconds."""
    return _http_fault(f"{url}/subjects", timeout)


def clickhouse_fault(url: str, timeout: float) -> str | None:
    """Request ``/ping``; return the error, or None. Blocks up to ``timeout`` seconds."""
    return _http_fault(f"{url}/ping", timeout)


def _http_fault(url: str, timeout: float) -> str | None:
    try:
        with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=timeout)) as pool:
            status = pool.request("GET", url).status
    except urllib3.exceptions.HTTPError as error:
        return f"{url}: {error}"
    return None if status == 200 else f"{url}: HTTP {status}"
