"""The stack as containers, for machines where a Docker engine answers."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import docker  # type: ignore[import-untyped]
from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

from auditstream_local.endpoints import Endpoints
from auditstream_local.server import free_ports

KAFKA_IMAGE = "apache/kafka:4.3.1"
REGISTRY_IMAGE = "confluentinc/cp-schema-registry:8.0.0"
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:26.9"
_START_SECONDS = 120


def missing_engine() -> str | None:
    """Why no container can be started here, or None."""
    with warnings.catch_warnings():
        # The library leaves the socket behind that got no answer.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            docker.from_env(timeout=5).close()
        except DockerException as error:
            return f"no Docker engine answers ({error})"
        finally:
            gc.collect()
    return None


@contextmanager
def container_stack() -> Iterator[Endpoints]:
    """Run Kafka, a schema registry and ClickHouse as containers until the block is left."""
    with ExitStack() as parts:
        network = parts.enter_context(Network())
        # Clients are sent to the advertised address, so the port on the host must be known beforehand.
        (port,) = free_ports(1)
        kafka = parts.enter_context(_kafka(network, port))
        registry = parts.enter_context(_registry(network))
        clickhouse = parts.enter_context(_clickhouse())
        host = kafka.get_container_host_ip()
        yield Endpoints(
            bootstrap_servers=f"{host}:{port}",
            registry_url=f"http://{host}:{registry.get_exposed_port(8081)}",
            clickhouse_url=f"http://{host}:{clickhouse.get_exposed_port(8123)}",
            clickhouse_tcp=f"{host}:{clickhouse.get_exposed_port(9000)}",
        )


def _kafka(network: Network, port: int) -> DockerContainer:
    container = DockerContainer(KAFKA_IMAGE)
    host = container.get_docker_client().host()
    return (
        container.with_network(network)
        .with_network_aliases("kafka")
        .with_bind_ports(port, port)
        .with_envs(
            KAFKA_NODE_ID="1",
            KAFKA_PROCESS_ROLES="broker,controller",
            KAFKA_LISTENERS=f"HOST://:{port},NETWORK://:19092,CONTROLLER://:9093",
            KAFKA_ADVERTISED_LISTENERS=f"HOST://{host}:{port},NETWORK://kafka:19092",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="HOST:PLAINTEXT,NETWORK:PLAINTEXT,CONTROLLER:PLAINTEXT",
            KAFKA_INTER_BROKER_LISTENER_NAME="NETWORK",
            KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
            KAFKA_CONTROLLER_QUORUM_VOTERS="1@localhost:9093",
            KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
            KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS="500",
            KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
        )
        .waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_SECONDS))
    )


def _registry(network: Network) -> DockerContainer:
    return (
        DockerContainer(REGISTRY_IMAGE)
        .with_network(network)
        .with_exposed_ports(8081)
        .with_envs(
            SCHEMA_REGISTRY_HOST_NAME="registry",
            SCHEMA_REGISTRY_LISTENERS="http://0.0.0.0:8081",
            SCHEMA_REGISTRY_KAFKASTORE_BOOTSTRAP_SERVERS="PLAINTEXT://kafka:19092",
        )
        .waiting_for(HttpWaitStrategy(8081, "/subjects").with_startup_timeout(_START_SECONDS))
    )


def _clickhouse() -> DockerContainer:
    return (
        DockerContainer(CLICKHOUSE_IMAGE)
        .with_exposed_ports(8123, 9000)
        # The default user without a password, as in the local stack; here it may create users.
        .with_envs(CLICKHOUSE_SKIP_USER_SETUP="1", CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT="1")
        .waiting_for(HttpWaitStrategy(8123, "/ping").with_startup_timeout(_START_SECONDS))
    )
