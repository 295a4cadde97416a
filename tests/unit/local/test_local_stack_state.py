import json
import os
import socket
from pathlib import Path

import pytest

from auditstream_local.endpoints import Endpoints
from auditstream_local.server import Server, free_ports, port_is_free
from auditstream_local.stack import LocalStack, Ports
from auditstream_local.supervision import running
from auditstream_schemas.errors import OperationError
from auditstream_schemas.settings import KafkaSettings, RegistrySettings, load
from tests.support.kafka_cluster import KafkaCluster

ENDPOINTS = Endpoints(
    bootstrap_servers="127.0.0.1:1,127.0.0.1:2",
    registry_url="http://127.0.0.1:3",
    clickhouse_url="http://127.0.0.1:4",
    clickhouse_tcp="127.0.0.1:5",
)


def test_settings_read_the_environment_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in ENDPOINTS.env_lines().splitlines():
        name, _, value = line.partition("=")
        assert not set(value) & set(" \t\"'$`\\&;|<>()*?#~")
        monkeypatch.setenv(name, value)
    assert load(KafkaSettings).kafka_bootstrap_servers == ENDPOINTS.bootstrap_servers
    assert load(RegistrySettings).schema_registry_url == ENDPOINTS.registry_url


def test_a_state_file_without_its_supervisor_is_ignored(tmp_path: Path) -> None:
    state = {"pid": os.getpid(), "started": "1", "endpoints": {}, "ready": True}
    (tmp_path / "stack.json").write_text(json.dumps(state), "utf-8")
    assert running(tmp_path) is None
    (tmp_path / "stack.lock").touch()
    assert running(tmp_path) is None


def test_free_ports_differ_and_are_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(map(port_is_free, ports))


def test_a_taken_port_is_reported_with_its_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert not port_is_free(port)
        with pytest.raises(OperationError, match=rf"port {port} .*--registry-port"):
            LocalStack(tmp_path, ports=Ports(registry=port))


def test_a_stack_on_other_brokers_starts_none(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path, bootstrap_servers="127.0.0.1:9")
    assert stack.endpoints.bootstrap_servers == "127.0.0.1:9"
    assert [server.name for server in stack.servers] == ["registry", "clickhouse"]


def test_a_missing_program_is_reported(tmp_path: Path) -> None:
    server = Server("ghost", ["/nowhere/ghost"], tmp_path / "logs" / "ghost.log", lambda _timeout: None)
    with pytest.raises(OperationError, match=r"ghost .*/nowhere/ghost"):
        server.start()
    assert server.ended() is None


def test_a_cluster_lists_every_broker(tmp_path: Path) -> None:
    cluster = KafkaCluster(tmp_path, brokers=3)
    assert len(set(cluster.bootstrap_servers.split(","))) == 3
    assert [broker.name for broker in cluster.brokers] == ["kafka-1", "kafka-2", "kafka-3"]
