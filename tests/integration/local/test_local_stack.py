"""``auditstream up``, ``status`` and ``down``: start, failure of each process, and the data that stay."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from confluent_kafka.admin import AdminClient

from auditstream_local.endpoints import clickhouse_fault, kafka_fault, registry_fault
from auditstream_local.server import free_ports
from auditstream_local.stack import LocalStack, Ports
from auditstream_schemas.errors import OperationError
from auditstream_schemas.registry import RegistryClient

SECONDS = 60
COMMAND = (sys.executable, "-P", "-m", "auditstream_ops")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "stack"
    yield directory
    pid = status(directory)["supervisor_pid"]
    if pid is not None:
        psutil.Process(pid).kill()


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False, cwd=cwd)


def up(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ports = ("--kafka-port", "0", "--registry-port", "0", "--clickhouse-port", "0", "--clickhouse-tcp-port", "0")
    return run("up", "--detach", "--data-dir", str(data_dir), *ports, *arguments)


def status(data_dir: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run("status", "--json", "--data-dir", str(data_dir)).stdout)
    return report


def environment(output: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.splitlines())


def servers_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def ask(env: dict[str, str], sql: str) -> str:
    response = urllib3.request("POST", env["AUDITSTREAM_CLICKHOUSE_URL"], body=sql, timeout=30, retries=False)
    assert response.status == 200, response.data
    return response.data.decode().strip()


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []


def test_a_detached_stack_is_reported_used_again_and_stopped(data_dir: Path) -> None:
    started = up(data_dir)
    assert started.returncode == 0, started.stderr
    env = environment(started.stdout)
    assert kafka_fault(env["AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS"], 10) is None
    assert registry_fault(env["AUDITSTREAM_SCHEMA_REGISTRY_URL"], 10) is None
    assert clickhouse_fault(env["AUDITSTREAM_CLICKHOUSE_URL"], 10) is None
    assert "the topics are gone" in started.stderr

    report = status(data_dir)
    assert report["healthy"]
    assert {server["name"]: server["fault"] for server in report["servers"]} == dict.fromkeys(
        ("kafka", "registry", "clickhouse")
    )
    servers = servers_of(report["supervisor_pid"])
    assert len(servers) >= 3

    again = up(data_dir)
    assert again.returncode == 0
    assert environment(again.stdout) == env
    assert "already up" in again.stderr
    assert status(data_dir)["supervisor_pid"] == report["supervisor_pid"]

    stopped = run("down", "--data-dir", str(data_dir))
    assert stopped.returncode == 0, stopped.stderr
    assert_gone(servers)
    assert run("status", "--data-dir", str(data_dir)).returncode == 1
    assert "no stack is up" in run("down", "--data-dir", str(data_dir)).stderr


def test_sigkill_of_the_supervisor_ends_the_servers_and_the_data_stay(data_dir: Path) -> None:
    env = environment(up(data_dir).stdout)
    ask(env, "CREATE DATABASE kept")
    ask(env, "CREATE TABLE kept.t (n UInt8) ENGINE = MergeTree ORDER BY n")
    ask(env, "INSERT INTO kept.t VALUES (7)")
    number = RegistryClient(env["AUDITSTREAM_SCHEMA_REGISTRY_URL"]).register("kept", '"string"')
    supervisor = psutil.Process(status(data_dir)["supervisor_pid"])
    servers = servers_of(supervisor.pid)
    supervisor.kill()
    assert_gone([supervisor, *servers])
    assert not status(data_dir)["healthy"]
    assert status(data_dir)["supervisor_pid"] is None

    env = environment(up(data_dir).stdout)
    assert ask(env, "SELECT n FROM kept.t") == "7"
    assert RegistryClient(env["AUDITSTREAM_SCHEMA_REGISTRY_URL"]).schema_id("kept", '"string"') == number
    topics = AdminClient({"bootstrap.servers": env["AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS"]}).list_topics(timeout=10)
    assert topics.topics == {}
    assert run("down", "--data-dir", str(data_dir)).returncode == 0


def test_when_one_server_ends_the_others_are_stopped_and_status_shows_the_reason(data_dir: Path) -> None:
    assert up(data_dir).returncode == 0
    supervisor = psutil.Process(status(data_dir)["supervisor_pid"])
    servers = servers_of(supervisor.pid)
    victim = next(server for server in servers if "auditstream_local.registry.server" in server.cmdline())
    victim.kill()
    assert_gone([supervisor, *servers])

    report = run("status", "--data-dir", str(data_dir))
    assert report.returncode == 1
    assert f"registry (process {victim.pid}) ended by SIGKILL" in report.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stack_in_the_foreground(data_dir: Path, number: signal.Signals) -> None:
    arguments = ("--kafka-port", "0", "--registry-port", "0", "--clickhouse-port", "0", "--clickhouse-tcp-port", "0")
    with subprocess.Popen(
        [*COMMAND, "up", "--data-dir", str(data_dir), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("AUDITSTREAM_")
        servers = servers_of(process.pid)
        assert len(servers) >= 3
        process.send_signal(number)
        _, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, stderr
    assert "topics are gone" in stderr
    assert_gone(servers)


def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "registry.json").write_text("no JSON", "utf-8")
    before = servers_of(os.getpid())
    with pytest.raises(OperationError, match=r"(?s)registry \(process .*registry\.json.*move the file away"):
        LocalStack(tmp_path).__enter__()
    assert servers_of(os.getpid()) == before


def test_a_chosen_port_that_was_taken_meanwhile_is_chosen_again(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path)
    _, _, port = stack.endpoints.clickhouse_url.rpartition(":")
    with socket.create_server(("127.0.0.1", int(port))), stack:
        assert stack.endpoints.clickhouse_url != f"http://127.0.0.1:{port}"
        assert clickhouse_fault(stack.endpoints.clickhouse_url, 10) is None
        assert registry_fault(stack.endpoints.registry_url, 10) is None


def test_a_given_port_that_was_taken_meanwhile_is_an_error(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    stack = LocalStack(tmp_path, ports=Ports(clickhouse=port))
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OperationError, match=f"127.0.0.1:{port}"):
        stack.__enter__()


def test_two_stacks_run_side_by_side(tmp_path: Path) -> None:
    with LocalStack(tmp_path / "a") as first, LocalStack(tmp_path / "b") as second:
        for number, stack in enumerate((first, second)):
            env = stack.endpoints.env()
            ask(env, "CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n")
            ask(env, f"INSERT INTO t VALUES ({number})")
        assert [ask(stack.endpoints.env(), "SELECT n FROM t") for stack in (first, second)] == ["0", "1"]


def test_a_shell_can_export_the_lines(data_dir: Path) -> None:
    (port,) = free_ports(1)
    script = (
        f'export $("$@" up --detach --data-dir {data_dir} --kafka-port {port} --registry-port 0 --clickhouse-port 0'
        ' --clickhouse-tcp-port 0) && env && "$@" down --data-dir ' + str(data_dir)
    )
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert f"AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:{port}" in done.stdout.splitlines()


def test_two_starts_at_once_give_one_stack(data_dir: Path) -> None:
    ports = ("--kafka-port", "0", "--registry-port", "0", "--clickhouse-port", "0", "--clickhouse-tcp-port", "0")
    command = [*COMMAND, "up", "--detach", "--data-dir", str(data_dir), *ports]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=SECONDS) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert len({lines for lines, _ in answers}) == 1
    assert sum("already up" in stderr for _, stderr in answers) == 1
    assert status(data_dir)["healthy"]
    assert run("down", "--data-dir", str(data_dir)).returncode == 0
