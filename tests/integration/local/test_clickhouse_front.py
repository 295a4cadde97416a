"""The ClickHouse front, as clients meet it: clickhouse-connect, curl, a bare HTTP client."""

import datetime
import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import clickhouse_connect
import duckdb
import lz4.frame
import pytest
import urllib3
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError
from clickhouse_connect.driver.external import ExternalData

from tests.support.front import Front, eventually, running_front

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FAILS_LATE = "SELECT number, throwIf(number = 2500000, 'too late') FROM numbers(3000000)"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with running_front(tmp_path_factory.mktemp("clickhouse")) as running:
        yield running


@pytest.fixture
def table(front: Front) -> str:
    name = f"t_{uuid4().hex}"
    front.ask(f"CREATE TABLE {name} (a Int32, b String) ENGINE = MergeTree ORDER BY a")
    return name


@pytest.fixture(params=["lz4", "zstd", "gzip", False])
def client(front: Front, request: pytest.FixtureRequest) -> Iterator[Client]:
    with closing(clickhouse_connect.get_client(host="127.0.0.1", port=front.port, compress=request.param)) as found:
        yield found


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["curl", "-sS", *arguments], capture_output=True, check=False)


def test_it_says_that_it_is_well(front: Front) -> None:
    for path in ("/ping", "/", "/replicas_status"):
        response = front.pool.request("GET", front.url + path)
        assert (response.status, response.data) == (200, b"Ok.\n")
    assert front.pool.request("GET", front.url + "/nowhere").status == 404


@pytest.mark.parametrize(
    "arguments",
    [
        ["{url}/?query=SELECT+1"],
        ["{url}/", "-d", "SELECT 1"],
        ["{url}/?query=SELECT", "-d", "1"],
        ["{url}/?query=SELECT+1", "-X", "POST", "-H", "Content-Length: 0"],
        ["{url}/", "-F", "query=SELECT 1"],
        ["{url}/?param_x=1", "-d", "SELECT {{x:Int8}}"],
        ["{url}/", "-F", "query=SELECT {{x:Int8}}", "-F", "param_x=1"],
        ["{url}/", "-d", "SELECT 1; -- that is all"],
    ],
)
def test_a_query_comes_in_the_url_the_body_or_a_form(front: Front, arguments: list[str]) -> None:
    assert curl(*[argument.format(url=front.url) for argument in arguments]).stdout == b"1\n"


def test_a_query_holds_any_bytes(front: Front) -> None:
    assert front.send(b"SELECT hex('\xff\xc3')").data == b"FFC3\n"
    assert curl(f"{front.url}/?query=SELECT+hex('%FF%C3')").stdout == b"FFC3\n"
    assert curl(f"{front.url}/", "-d", "SELECT 'grün'").stdout.decode() == "grün\n"


def test_parameters_keep_awkward_values(client: Client) -> None:
    values = ["it's", "tab\t nl\n back\\slash", "ünï", ""]
    result = client.query("SELECT {x:Array(String)}, {y:String}", parameters={"x": values, "y": values[1]})
    assert result.result_rows == [(values, values[1])]


def test_a_response_says_what_it_is(front: Front) -> None:
    response = front.send("SELECT number FROM numbers(5)", default_format="JSONEachRow", query_id="my-own")
    assert response.headers["X-ClickHouse-Query-Id"] == "my-own"
    assert response.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert response.headers["X-ClickHouse-Timezone"] == "UTC"
    assert response.headers["Content-Type"] == "application/x-ndjson; charset=UTF-8"
    assert json.loads(response.headers["X-ClickHouse-Summary"])["read_rows"] == "5"
    assert front.send("SELECT 1", {"X-ClickHouse-Format": "CSV"}).headers["Content-Type"].startswith("text/csv")


def test_a_setting_holds_for_its_query_alone(front: Front) -> None:
    def ask(number: int) -> str:
        return front.ask("SELECT getSetting('max_block_size'), currentDatabase()", max_block_size=str(number))

    with ThreadPoolExecutor(10) as threads:
        found = list(threads.map(ask, range(1000, 1200)))
    assert found == [f"{number}\tdefault" for number in range(1000, 1200)]
    assert front.ask("SELECT currentDatabase()", database="system") == "system"
    assert front.ask("SELECT getSetting('max_block_size') < 1000") == "0"


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1", 400, 62),
        ("1", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT toUInt8('x')", 400, 6),
        ("SELECT * FROM nowhere", 404, 60),
        ("SELECT nothing", 404, 47),
        ("SELECT 1 FORMAT Nothing", 404, 73),
        ("SELECT 1 SETTINGS nothing = 1", 404, 115),
        ("SELECT {x:String}", 400, 456),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT sleep(3) SETTINGS max_execution_time = 0.2", 408, 159),
        ("CREATE USER somebody", 403, 497),
        ("SET max_threads = 1", 501, 48),
        ("CREATE TEMPORARY TABLE t (a Int8)", 501, 48),
    ],
)
def test_errors_are_told_as_clickhouse_tells_them(front: Front, sql: str, status: int, code: int) -> None:
    response = front.send(sql)
    assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert response.data.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert b"OUTFILE" not in response.data.partition(b"Expected one of")[0]


def test_an_unknown_database_or_setting_is_an_error(front: Front) -> None:
    assert front.send("SELECT 1", database="nowhere").headers["X-ClickHouse-Exception-Code"] == "81"
    assert front.send("SELECT 1", nothing="1").headers["X-ClickHouse-Exception-Code"] == "115"


def test_an_error_that_quotes_raw_bytes_keeps_its_code(front: Front) -> None:
    response = front.send(b"SELECT throwIf(1, '\xff\xfe')")
    assert response.headers["X-ClickHouse-Exception-Code"] == "395"
    assert b"\xff\xfe" in response.data


def test_get_reads_only(front: Front, table: str) -> None:
    response = front.pool.request("GET", f"{front.url}/?query=INSERT+INTO+{table}+VALUES+(1,'a')")
    assert response.headers["X-ClickHouse-Exception-Code"] == "164"
    assert front.ask(f"SELECT count() FROM {table}") == "0"


@pytest.mark.parametrize(
    ("statement", "body"),
    [
        ("", "INSERT INTO {t} FORMAT CSV\n1,a\n2,b\n"),
        ("", "INSERT INTO {t} (b, a) VALUES ('a', 1), (upper('B'), 1 + 1)"),
        ("", "INSERT INTO {t} SELECT number + 1, char(97 + number) FROM numbers(2)"),
        ("INSERT INTO {t} FORMAT TSV", "1\ta\n2\tb\n"),
        ("INSERT INTO {t} FORMAT JSONEachRow", '{{"a": 1}}\n{{"a": 2}}'),
        ("INSERT INTO {t} (a, b) VALUES", "(1, 'a'), (2, 'b')"),
        ("INSERT INTO {t} SETTINGS format_csv_delimiter = ';' FORMAT CSV", "1;a\n2;b"),
        ("INSERT INTO {{t:Identifier}} FORMAT TSV", "1\ta\n2\tb\n"),
    ],
)
def test_inserts_of_every_shape(front: Front, table: str, statement: str, body: str) -> None:
    response = front.send(body.format(t=table), query=statement.format(t=table), param_t=table)
    assert response.status == 200, response.data
    assert json.loads(response.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    assert front.ask(f"SELECT sum(a), count() FROM {table}") == "3\t2"


def test_settings_of_an_insert_hold_for_it(front: Front, table: str) -> None:
    response = front.send(b"1;a", query=f"INSERT INTO {table} FORMAT CSV", format_csv_delimiter=";")
    assert response.status == 200, response.data
    assert front.send(b"1;a", query=f"INSERT INTO {table} FORMAT CSV").status == 400


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"1\ta\n" * 100_000)),
        ("deflate", zlib.compress(b"1\ta\n" * 100_000)),
        ("zstd", zstd.compress(b"1\ta\n" * 100_000)),
        ("lz4", bytes(lz4.frame.compress(b"1\ta\n" * 100_000))),
    ],
)
def test_compressed_inserts(front: Front, table: str, encoding: str, body: bytes) -> None:
    url = f"{front.url}/?query=INSERT+INTO+{table}+FORMAT+TSV"
    cut = front.pool.request("POST", url, body=body[:-5], headers={"Content-Encoding": encoding})
    assert (cut.status, cut.headers["X-ClickHouse-Exception-Code"]) == (500, "271")
    whole = front.pool.request("POST", url, body=body, headers={"Content-Encoding": encoding})
    assert whole.status == 200, whole.data
    assert front.ask(f"SELECT count() FROM {table}") == "100000"
    eventually(lambda: front.spooled() == [], "nothing is left of the inserts")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4"])
def test_compressed_results(front: Front, encoding: str) -> None:
    for rows in (10, 1_000_000):
        response = front.pool.request(
            "POST",
            f"{front.url}/?enable_http_compression=1",
            body=f"SELECT number FROM numbers({rows})",
            headers={"Accept-Encoding": encoding},
            decode_content=False,
        )
        assert response.headers["Content-Encoding"] == encoding
        expanded = {
            "gzip": gzip.decompress,
            "deflate": zlib.decompress,
            "zstd": zstd.decompress,
            "lz4": lz4.frame.decompress,
        }[encoding](response.data)
        assert expanded == b"".join(b"%d\n" % number for number in range(rows))


def test_formats_with_a_beginning_and_an_end_are_whole(front: Front, tmp_path: Path) -> None:
    query = "SELECT number AS n, toString(number) AS s FROM numbers(300000) FORMAT "
    csv = front.ask(query + "CSVWithNames").splitlines()
    assert (csv[0], csv[1], csv[-1], len(csv)) == ('"n","s"', '0,"0"', '299999,"299999"', 300_001)
    document = json.loads(front.ask(query + "JSON"))
    assert (document["rows"], document["data"][-1]["s"]) == (300_000, "299999")
    file = tmp_path / "result.parquet"
    file.write_bytes(front.send(query + "Parquet").data)
    with duckdb.connect() as database:
        found = database.execute(f"SELECT count(*), sum(n), max(s) FROM '{file}'").fetchone()
    assert found == (300_000, 299_999 * 150_000, "99999")


def test_clickhouse_connect_inserts_and_reads_back(client: Client, table: str) -> None:
    name = f"{table}_typed"
    client.command(
        f"CREATE TABLE {name} (a UInt64, b Nullable(DateTime64(9, 'UTC')), c Map(String, String)) ENGINE = Memory"
    )
    when = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert client.insert(name, [[1, when, {"k": "it's"}], [2**64 - 1, None, {}]]).written_rows == 2
    found = client.query(f"SELECT * FROM {name} ORDER BY a").result_rows
    assert found == [(1, when.replace(tzinfo=None), {"k": "it's"}), (2**64 - 1, None, {})]
    client.raw_insert(name, ["a"], b"7\n8\n", fmt="TSV")
    assert client.command(f"SELECT count() FROM {name}") == 4
    assert client.command(f"EXISTS {table}_not") == 0
    with client.query_row_block_stream("SELECT number, toString(number) FROM numbers(500000)") as stream:
        assert sum(len(block) for block in stream) == 500_000


def test_external_tables(client: Client) -> None:
    data = ExternalData(file_name="ext", data=b"1,x\n2,y\n", fmt="CSV", structure="a Int32, b String")
    assert client.query("SELECT sum(a), max(b) FROM ext", external_data=data).result_rows == [(3, "y")]
    data = ExternalData(file_name="ext", data=b"1\tx\n", types=["Int32", "String"])
    query = client.query("SELECT _1, _2, {p:Int8} FROM ext", external_data=data, parameters={"p": 5})
    assert query.result_rows == [(1, "x", 5)]


def test_an_exception_in_the_middle_of_a_result_is_seen(client: Client) -> None:
    def read() -> None:
        with client.query_row_block_stream(FAILS_LATE) as stream:
            for _ in stream:
                pass

    with pytest.raises(StreamFailureError, match="too late"):
        read()
    # Without streaming, the client asks for the end before the beginning.
    with pytest.raises(DatabaseError, match="code: 395"):
        client.query(FAILS_LATE)


def test_a_result_cut_by_an_exception_is_not_taken_for_whole(front: Front) -> None:
    response = front.pool.request("POST", f"{front.url}/", body=FAILS_LATE, preload_content=False)
    parts: list[bytes] = []
    with pytest.raises(urllib3.exceptions.ProtocolError):
        parts.extend(response.stream(1 << 20))
    assert response.status == 200
    cut = curl(f"{front.url}/", "-d", FAILS_LATE, "-D", "/dev/stderr")
    tag = next(
        line.split(b": ")[1].strip() for line in cut.stderr.splitlines() if line.lower().startswith(b"x-clickhouse-exc")
    )
    assert cut.returncode == 18
    before, _, block = cut.stdout.rpartition(b"\r\n__exception__\r\n" + tag + b"\r\n")
    assert before.endswith(b"\t0\n")
    assert block.startswith(b"Code: 395. DB::Exception: too late")
    assert block.endswith(b" " + tag + b"\r\n__exception__\r\n")


def test_an_early_exception_has_a_status(front: Front) -> None:
    assert front.send("SELECT number, throwIf(number = 10) FROM numbers(3000000)").status == 500
    assert front.send(FAILS_LATE, wait_end_of_query="1").status == 500


def test_statements_of_all_kinds(front: Front, table: str) -> None:
    front.ask(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b')")
    assert front.ask(f"SHOW TABLES LIKE '{table}'") == table
    assert front.ask(f"DESCRIBE {table}").splitlines()[0].split("\t")[:2] == ["a", "Int32"]
    assert "ReadFromMergeTree" in front.ask(f"EXPLAIN SELECT * FROM {table}")
    assert front.ask("EXPLAIN AST SELECT 1 FORMAT TSVRaw").startswith("SelectWithUnionQuery")
    assert json.loads(front.ask(f"EXISTS {table} FORMAT JSON"))["data"] == [{"result": 1}]
    front.ask(f"CREATE VIEW {table}_v AS SELECT a + 1 AS a FROM {table}")
    front.ask(f"ALTER TABLE {table} ADD COLUMN c UInt8 DEFAULT 7")
    front.ask(f"ALTER TABLE {table} DELETE WHERE a = 2", mutations_sync="1")
    front.ask(f"OPTIMIZE TABLE {table} FINAL")
    front.ask("SYSTEM STOP MERGES")
    front.ask("SYSTEM START MERGES")
    assert front.ask(f"SELECT v.a, t.c FROM {table}_v v, {table} t") == "2\t7"
    assert front.ask(f"SELECT sum(rows) FROM system.parts WHERE active AND table = '{table}'") == "1"
    front.ask(f"DROP TABLE {table} SYNC")
    assert front.send(f"SELECT 1 FROM {table}").status == 404


def test_pages_of_other_sites_may_not_ask(front: Front) -> None:
    assert front.send("SELECT 1", {"Origin": "http://elsewhere.example"}).status == 403
