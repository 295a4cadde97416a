import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from auditstream_export import ExportRequest, export_events
from auditstream_schemas.errors import ExportError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import from_datetime
from tests.support.events import START, make_event
from tests.support.fix_stack import Tenant
from tests.support.relay import Send, relay
from tests.support.stored_events import store

ALL = ExportRequest(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))
EVENTS = 500
EXCEPTION = (
    b"\r\n__exception__\r\nabcdefghijklmnop\r\nCode: 241. DB::Exception: Memory limit exceeded\n"
    b"45 abcdefghijklmnop\r\n__exception__\r\n"
)


@pytest.fixture
def settings(tenant: Tenant) -> ClickHouseSettings:
    settings = tenant.clickhouse("exporter")
    store(settings, [make_event(number) for number in range(EVENTS)])
    return settings


def _half(body: bytes) -> int:
    """Position of a record in the middle of the CSV."""
    return body.index(b"\r\n", len(body) // 2) + 2


def whole(body: bytes, send: Send) -> bool:
    send(body)
    return True


def ends_after_half_of_the_records(body: bytes, send: Send) -> bool:
    send(body[: _half(body)])
    return True


def lacks_the_last_record(body: bytes, send: Send) -> bool:
    send(body[: body.rindex(b"\r\n", 0, -2) + 2])
    return True


def ends_inside_a_record(body: bytes, send: Send) -> bool:
    send(body[: _half(body) + 20])
    return True


def ends_inside_the_last_record(body: bytes, send: Send) -> bool:
    send(body[:-3])
    return True


def holds_an_exception_between_records(body: bytes, send: Send) -> bool:
    send(body[: _half(body)] + EXCEPTION)
    return True


def holds_an_exception_behind_the_last_record(body: bytes, send: Send) -> bool:
    send(body)
    send(EXCEPTION)
    return True


def repeats_a_record(body: bytes, send: Send) -> bool:
    send(body)
    send(body[body.rindex(b"\r\n", 0, -2) + 2 :])
    return True


def is_empty(_body: bytes, _send: Send) -> bool:
    return True


def breaks_the_connection_between_records(body: bytes, send: Send) -> bool:
    send(body[: _half(body)])
    return False


def breaks_the_connection_at_once(_body: bytes, _send: Send) -> bool:
    return False


SPOILED = [
    (ends_after_half_of_the_records, r"ClickHouse sent \d+ of 500 events"),
    (lacks_the_last_record, "ClickHouse sent 499 of 500 events"),
    (ends_inside_a_record, "broke off: it ended inside a record"),
    (ends_inside_the_last_record, "broke off: it ended inside a record"),
    (holds_an_exception_between_records, "Code: 241. DB::Exception: Memory limit exceeded"),
    (holds_an_exception_behind_the_last_record, "Code: 241. DB::Exception: Memory limit exceeded"),
    (repeats_a_record, "ClickHouse sent 501 of 500 events"),
    (is_empty, "ClickHouse sent 0 of 500 events"),
    (breaks_the_connection_between_records, "ClickHouse failed"),
    (breaks_the_connection_at_once, "ClickHouse failed"),
]


def test_an_answer_that_the_relay_does_not_change_is_exported(settings: ClickHouseSettings, tmp_path: Path) -> None:
    with relay(settings.clickhouse_url, whole) as url:
        assert export_events(replace(settings, clickhouse_url=url), ALL, tmp_path / "all.csv").rows == EVENTS


def test_an_incomplete_answer_leaves_no_file(settings: ClickHouseSettings, tmp_path: Path) -> None:
    for spoil, message in SPOILED:
        with relay(settings.clickhouse_url, spoil) as url, pytest.raises(ExportError, match=message):
            export_events(replace(settings, clickhouse_url=url), ALL, tmp_path / "all.csv")
        assert list(tmp_path.iterdir()) == [], spoil.__name__


def test_an_existing_file_stays_if_its_replacement_fails(settings: ClickHouseSettings, tmp_path: Path) -> None:
    export_events(settings, ALL, tmp_path / "all.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with relay(settings.clickhouse_url, lacks_the_last_record) as url, pytest.raises(ExportError):
        export_events(replace(settings, clickhouse_url=url), ALL, tmp_path / "all.csv", overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_query_that_fails_in_clickhouse_leaves_nothing(
    settings: ClickHouseSettings, tenant: Tenant, tmp_path: Path
) -> None:
    client = tenant.administrator()
    client.command(
        f"CREATE OR REPLACE VIEW {settings.clickhouse_database}.events SQL SECURITY DEFINER AS SELECT * REPLACE"
        " (if(throwIf(payload LIKE '%\"number\":400,%', 'broken disk') = 0, payload, '') AS payload)"
        f" FROM {settings.clickhouse_database}.event_log FINAL",
        use_database=False,
    )
    client.close()
    with pytest.raises(ExportError, match="broken disk"):
        export_events(settings, ALL, tmp_path / "all.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_database_is_an_error(settings: ClickHouseSettings, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no_such_database"):
        export_events(replace(settings, clickhouse_database="no_such_database"), ALL, tmp_path / "all.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_clickhouse_that_is_down_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no ClickHouse at AUDITSTREAM_CLICKHOUSE_URL"):
        export_events(ClickHouseSettings(clickhouse_url="http://127.0.0.1:1"), ALL, tmp_path / "all.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_exception_of_the_caller_leaves_nothing(settings: ClickHouseSettings, tmp_path: Path) -> None:
    def interrupt(rows: int, total: int) -> None:
        if rows == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_events(settings, ALL, tmp_path / "all.csv", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["missing/all.csv", "."])
def test_a_target_that_cannot_be_written_is_an_error(settings: ClickHouseSettings, tmp_path: Path, target: str) -> None:
    with pytest.raises(ExportError, match=r"No such file|is a directory"):
        export_events(settings, ALL, tmp_path / target)


@pytest.mark.parametrize("name", ["all.csv", "all.csv.gz"])
def test_a_file_size_limit_leaves_no_file(
    tenant: Tenant, settings: ClickHouseSettings, tmp_path: Path, name: str
) -> None:
    store(settings, [make_event(number, metadata={"random": os.urandom(500).hex()}) for number in range(500, 1500)])
    ended = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -f 100; exec auditstream export --from {START:%Y-%m-%d} --to 2200-01-01 -o {name}"],
        env=_environment(tenant), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"cannot write {name}: File too large; nothing was exported" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_standard_output_is_an_error(tenant: Tenant, settings: ClickHouseSettings) -> None:
    assert settings.clickhouse_database == tenant.database
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            ["auditstream", "export", "--from", f"{START:%Y-%m-%d}", "--to", "2200-01-01", "-o", "-"],
            env=_environment(tenant), stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    message = "auditstream: cannot write to standard output: No space left on device; its content is incomplete\n"
    assert (ended.returncode, ended.stderr) == (1, message)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_leaves_nothing(settings: ClickHouseSettings, small_disk: Path) -> None:
    with pytest.raises(ExportError, match="No space left on device"):
        export_events(settings, ALL, small_disk / "all.csv")
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_in_the_middle_leaves_nothing(
    tenant: Tenant, settings: ClickHouseSettings, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def stalls_in_the_middle(body: bytes, send: Send) -> bool:
        send(body[: len(body) // 2])
        reached.set()
        go_on.wait(60)
        return False

    with relay(settings.clickhouse_url, stalls_in_the_middle) as url:
        export = subprocess.Popen(
            ["auditstream", "export", "--from", f"{START:%Y-%m-%d}", "--to", "2200-01-01", "-o", "all.csv"],
            env={**_environment(tenant), "AUDITSTREAM_CLICKHOUSE_URL": url},
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert reached.wait(60)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv.part", "all.csv.part.journal"]
        export.send_signal(number)
        output, errors = export.communicate(timeout=60)
        go_on.set()
    assert (export.returncode, output) == (code, b""), errors
    assert list(tmp_path.iterdir()) == []


def _environment(tenant: Tenant) -> dict[str, str]:
    return {**os.environ, **tenant.env, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
