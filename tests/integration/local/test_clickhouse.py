"""The local ClickHouse server: a process of its own, started and ended in every way that development meets."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlencode

import psutil
import pytest
import urllib3

from auditstream_local.clickhouse import STATEMENT
from auditstream_local.endpoints import clickhouse_fault
from auditstream_local.server import free_ports
from tests.support.waiting import eventually

COMMAND = [sys.executable, "-m", "auditstream_local.clickhouse"]
LARGE = "SELECT number, toString(sipHash64(number)) AS s FROM numbers({}) FORMAT CSV"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouse:
    """A server that runs."""

    url: str
    tcp_port: int
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def send(self, sql: str | bytes, **parameters: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request("POST", f"{self.url}/?{urlencode(parameters)}", body=sql, retries=False, timeout=60)

    def ask(self, sql: str, **parameters: str) -> str:
        response = self.send(sql, **parameters)
        assert response.status == 200, response.data
        return response.data.decode().rstrip("\n")

    def resident(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def running(data_dir: Path) -> Iterator[ClickHouse]:
    port, tcp_port = free_ports(2)
    data_dir.mkdir(exist_ok=True)
    log = data_dir / "process.log"
    with log.open("ab") as output:
        command = [*COMMAND, "--data-dir", str(data_dir), "--port", str(port), "--tcp-port", str(tcp_port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = monotonic() + 30
        while fault := clickhouse_fault(url, 1):
            if process.poll() is not None or monotonic() > deadline:
                pytest.fail(
                    f"ClickHouse of chdb-core {version('chdb-core')} does not listen ({fault}): a new version "
                    f"may have lost SYSTEM START LISTEN; keep the version before it.\n{log.read_text('utf-8')}"
                )
            sleep(0.05)
        yield ClickHouse(url=url, tcp_port=tcp_port, process=process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with running(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


def test_the_wheel_listens_on_both_ports(clickhouse: ClickHouse) -> None:
    assert clickhouse.ask("SELECT timezone(), currentUser()") == "UTC\tdefault"
    with socket.create_connection(("127.0.0.1", clickhouse.tcp_port), 5):
        pass


def test_the_statement_that_keeps_it_up_has_no_end(clickhouse: ClickHouse) -> None:
    assert "FROM system.numbers " in STATEMENT
    assert not re.search(r"LIMIT|WHERE|max_(rows|bytes|execution)", STATEMENT)
    statement = STATEMENT.rpartition("; ")[2]
    rows = clickhouse.ask(f"SELECT query = '{statement}', Settings['max_execution_time'] FROM system.processes LIMIT 1")
    assert rows == "1\t"


def test_it_listens_on_loopback_only(clickhouse: ClickHouse) -> None:
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.Process(clickhouse.process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", clickhouse.port), ("127.0.0.1", clickhouse.tcp_port)}


def test_an_error_with_raw_bytes_keeps_its_code(clickhouse: ClickHouse) -> None:
    response = clickhouse.send(b"SELECT throwIf(1, '\xff\xfe')")
    assert response.headers["X-ClickHouse-Exception-Code"] == "395"
    assert b"\xff\xfe" in response.data


def test_a_large_result_is_streamed_to_a_slow_client(clickhouse: ClickHouse) -> None:
    clickhouse.send(LARGE.format(2_000_000))
    before, size, most = clickhouse.resident(), 0, 0
    response = urllib3.request("POST", clickhouse.url, body=LARGE.format(8_000_000), preload_content=False)
    for number, chunk in enumerate(response.stream(1 << 20)):
        size += len(chunk)
        if number % 20 == 0:
            sleep(0.05)
            most = max(most, clickhouse.resident())
    assert size > 200_000_000
    assert most - before < size / 4


def test_it_is_idle_when_nobody_asks(clickhouse: ClickHouse) -> None:
    process = psutil.Process(clickhouse.process.pid)
    sleep(1)
    before = process.cpu_times()
    sleep(3)
    after = process.cpu_times()
    assert (after.user + after.system) - (before.user + before.system) < 0.3


def test_acknowledged_rows_survive_a_kill(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        first.ask("CREATE TABLE t (a Int32, b String) ENGINE = MergeTree ORDER BY a")
        for number in range(50):
            first.ask(f"INSERT INTO t SELECT {number}, 'x' FROM numbers(1000)")
        body = b"INSERT INTO t SELECT -1, 'x' FROM numbers(100000000)"
        with socket.create_connection(("127.0.0.1", first.port)) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            eventually(lambda: "SELECT -1" in first.ask("SELECT query FROM system.processes"), "the insert runs")
            first.process.kill()
            first.process.wait()
    with running(tmp_path) as second:
        assert second.ask("SELECT count(), uniqExact(a) FROM t WHERE a >= 0") == "50000\t50"


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    with running(tmp_path):
        port, tcp_port = map(str, free_ports(2))
        command = [*COMMAND, "--data-dir", str(tmp_path), "--port", port, "--tcp-port", tcp_port]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert second.returncode == 1
        assert "another ClickHouse uses the data directory" in second.stderr


def test_a_port_in_use_is_named(clickhouse: ClickHouse, tmp_path: Path) -> None:
    command = [*COMMAND, "--data-dir", str(tmp_path), "--port", str(clickhouse.port)]
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 1
    assert f"127.0.0.1:{clickhouse.port}" in second.stderr
    assert version("chdb-core") in second.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_whatever_runs(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        query = b"SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(query) + query)
        eventually(lambda: "sipHash64" in server.ask("SELECT query FROM system.processes"), "the query runs")
        server.process.send_signal(number)
        assert server.process.wait(5) == 0


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline(), flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, *COMMAND, "--data-dir", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        words = parent.stdout.readline().split()
        eventually(lambda: clickhouse_fault(words[2], 1) is None, "it listens")
        child = psutil.Process(int(words[0]))
        os.kill(parent.pid, signal.SIGKILL)
        eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child is gone")
