"""The ClickHouse front under strain: slow and vanishing clients, large results, kills, restarts."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.support.front import COMMAND, Front, eventually, running_front

ENDLESS = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"
LONG = "SELECT number, toString(sipHash64(number)) FROM numbers(1000000000)"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with running_front(tmp_path_factory.mktemp("clickhouse")) as running:
        yield running


@pytest.fixture
def table(front: Front) -> str:
    name = f"t_{uuid4().hex}"
    front.ask(f"CREATE TABLE {name} (a Int32, b String) ENGINE = MergeTree ORDER BY a")
    return name


def request(front: Front, body: str, query: str = "", length: int | None = None) -> socket.socket:
    """Send a request, or the beginning of one, over a connection of its own."""
    connection = socket.create_connection(("127.0.0.1", front.port))
    size = len(body) if length is None else length
    head = f"POST /?{query} HTTP/1.1\r\nHost: 127.0.0.1:{front.port}\r\nContent-Length: {size}\r\n\r\n"
    connection.sendall(head.encode() + body.encode())
    return connection


def running(front: Front, comment: str) -> bool:
    return front.ask(f"SELECT count() FROM system.processes WHERE Settings['log_comment'] = '{comment}'") != "0"


@pytest.mark.parametrize("sql", [ENDLESS, LONG, LONG + " FORMAT JSON"])
def test_a_client_that_leaves_ends_its_query(front: Front, sql: str) -> None:
    name = uuid4().hex
    with request(front, sql, f"query_id={name}"):
        eventually(lambda: running(front, name), "the query runs")
    eventually(lambda: not running(front, name), "the query has ended")
    eventually(lambda: front.spooled() == [], "nothing is left of it")


def test_a_query_is_killed_by_the_id_its_client_gave(front: Front) -> None:
    name = uuid4().hex
    with request(front, ENDLESS, f"query_id={name}") as connection:
        eventually(lambda: running(front, name), "the query runs")
        front.ask(f"KILL QUERY WHERE query_id = '{name}' SYNC")
        assert b"X-ClickHouse-Exception-Code: 394".lower() in connection.recv(4096).lower()


def test_a_slow_reader_holds_up_nobody(front: Front, table: str) -> None:
    with request(front, LONG) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        with request(front, ENDLESS):
            front.ask(f"INSERT INTO {table} VALUES (1, 'a')")
            assert front.ask(f"SELECT count() FROM {table}") == "1"


def test_large_results_take_no_memory(front: Front) -> None:
    query = "SELECT number, toString(sipHash64(number)) AS s FROM numbers({}) FORMAT CSVWithNames"
    front.pool.request("POST", f"{front.url}/", body=query.format(2_000_000))
    before = front.resident()
    response = front.pool.request("POST", f"{front.url}/", body=query.format(8_000_000), preload_content=False)
    size, most = 0, 0
    for chunk in response.stream(1 << 20):
        size += len(chunk)
        most = max(most, front.resident())
    assert most - before < size / 2


def test_large_inserts_take_no_memory(front: Front) -> None:
    def insert(rows: int) -> int:
        body = b"1,some text of no great interest\n" * rows
        sent = front.send(body, query="INSERT INTO FUNCTION null('a Int32, b String') FORMAT CSV")
        assert sent.status == 200, sent.data
        return len(body)

    # The first one fills the buffers and the allocator's arenas of as many parsers as there are cores.
    insert(4_000_000)
    before = front.resident()
    size = insert(16_000_000)
    assert front.resident() - before < size / 2


def test_an_insert_whose_client_left_has_inserted_nothing(front: Front, table: str) -> None:
    rows = "1\tsome text of no great interest\n" * 200_000
    query = f"query=INSERT+INTO+{table}+FORMAT+TSV&max_insert_block_size=1000"
    with request(front, rows, query, length=2 * len(rows)):
        eventually(lambda: front.spooled() != [], "the data are on their way")
    eventually(lambda: front.spooled() == [], "the data are gone")
    assert front.ask(f"SELECT count() FROM {table}") == "0"


def test_acknowledged_inserts_survive_a_kill(tmp_path: Path) -> None:
    with running_front(tmp_path) as first:
        first.ask("CREATE TABLE t (a Int32, b String) ENGINE = MergeTree ORDER BY a")
        for number in range(50):
            first.ask(f"INSERT INTO t SELECT {number}, 'x' FROM numbers(1000)", async_insert="1")
        with request(first, "INSERT INTO t SELECT -1, 'x' FROM numbers(100000000)"):
            first.process.kill()
            first.process.wait()
    with running_front(tmp_path) as second:
        found = second.ask("SELECT count(), uniqExact(a) FROM t WHERE a >= 0")
        assert found == "50000\t50"
        eventually(lambda: second.spooled() == [], "nothing is left of the query")


def test_a_directory_in_use_is_refused_by_name(front: Front) -> None:
    second = subprocess.run([*COMMAND, "--data-dir", str(front.data_dir)], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stdout == ""
    assert second.stderr == (
        f"clickhouse: the data directory {front.data_dir} is in use by another ClickHouse front: "
        "stop that one, or choose another directory\n"
    )


def test_a_port_in_use_is_refused_by_name(front: Front, tmp_path: Path) -> None:
    command = [*COMMAND[:-1], str(front.port), "--data-dir", str(tmp_path)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"port {front.port}" in second.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_asked(tmp_path: Path, number: signal.Signals) -> None:
    with running_front(tmp_path) as stopping:
        stopping.ask("CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a")
        stopping.process.send_signal(number)
        assert stopping.process.wait(20) == 0


def test_it_stops_within_its_deadline_whatever_runs(tmp_path: Path) -> None:
    with running_front(tmp_path) as stopping, request(stopping, LONG), request(stopping, ENDLESS, "query_id=x"):
        eventually(lambda: running(stopping, "x"), "the query runs")
        stopping.process.terminate()
        assert stopping.process.wait(25) == 0


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline(), flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, *COMMAND, "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline().split()[0]))
        os.kill(parent.pid, signal.SIGKILL)
        eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child is gone")


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    with running_front(tmp_path, "--password", "secret") as guarded:
        assert guarded.pool.request("GET", f"{guarded.url}/ping").status == 200
        refused = guarded.send("SELECT 1", {"X-ClickHouse-Key": "wrong"})
        assert (refused.status, refused.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
        assert guarded.send("SELECT 1", {"X-ClickHouse-Key": "secret"}).data == b"1\n"
