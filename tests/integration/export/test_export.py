import csv
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from auditstream_export import ExportFilter, ExportRequest, event_json_from_row, export_events
from auditstream_schemas.catalog import catalog_sha256
from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_schemas.errors import ExportError
from auditstream_schemas.event import FIELDS, AuditEvent
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import format_timestamp, from_datetime
from tests.support.events import START, events, make_event
from tests.support.fix_stack import Tenant
from tests.support.stored_events import TOPIC_ID, awkward_events, clear, connect, store

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

csv.field_size_limit(2_000_000)
ALL = ExportRequest(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))


@pytest.fixture
def settings(tenant: Tenant) -> ClickHouseSettings:
    return tenant.clickhouse("exporter")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _events(path: Path) -> list[AuditEvent]:
    return [AuditEvent.from_json(event_json_from_row(row)) for row in _rows(path)]


def _ids(settings: ClickHouseSettings, path: Path, **conditions: Any) -> set[int]:
    """Numbers of the exported events, as make_event counts them."""
    export_events(settings, replace(ALL, filter=ExportFilter(**conditions)), path, overwrite=True)
    return {json.loads(row["payload"])["number"] for row in _rows(path)}


def test_stored_events_are_exported_in_order(settings: ClickHouseSettings, tmp_path: Path) -> None:
    stored = awkward_events()
    store(settings, reversed(stored))
    result = export_events(settings, ALL, tmp_path / "all.csv")
    assert result.rows == len(stored)
    assert _events(tmp_path / "all.csv") == stored


def test_an_export_whose_events_are_stored_again_has_the_same_bytes(
    settings: ClickHouseSettings, tmp_path: Path
) -> None:
    store(settings, awkward_events())
    export_events(settings, ALL, tmp_path / "first.csv")
    clear(settings)
    store(settings, _events(tmp_path / "first.csv"))
    export_events(settings, ALL, tmp_path / "second.csv")
    assert (tmp_path / "second.csv").read_bytes() == (tmp_path / "first.csv").read_bytes()


@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(drawn=st.lists(events(), min_size=1, max_size=20, unique_by=lambda event: event.id), data=st.data())
def test_any_event_is_exported_unchanged(
    settings: ClickHouseSettings, tmp_path: Path, drawn: list[AuditEvent], data: st.DataObject
) -> None:
    moments = st.integers(ALL.start, ALL.start + 3_600_000_000_000)
    stored = [replace(event, occurred_at=data.draw(moments)) for event in drawn]
    clear(settings)
    store(settings, stored)
    export_events(settings, ALL, tmp_path / "drawn.csv", overwrite=True)
    assert _events(tmp_path / "drawn.csv") == sorted(stored, key=lambda event: (event.occurred_at, str(event.id)))


def test_the_bytes_are_rfc_4180_and_the_cells_compact_json(settings: ClickHouseSettings, tmp_path: Path) -> None:
    event = AuditEvent.build(
        action="a.b",
        actor={"id": "u/1", "type": "user", "name": "", "z": "1", "a": 'say "é"'},
        target={"id": "t", "type": "x"},
        id="AAAAAAAA-0000-4000-8000-00000000000F",
        occurred_at=START,
        payload={"text": "a,b\r\n"},
        metadata={"b": "2", "a": "1"},
        success=False,
    )
    store(settings, [event])
    export_events(settings, ALL, tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_bytes().decode() == (
        "action,actor,target,payload,occurred_at,metadata,id,version,scope,success,request\r\n"
        '"a.b","{""id"":""u/1"",""type"":""user"",""name"":"""",""a"":""say \\""é\\"""",""z"":""1""}",'
        '"{""id"":""t"",""type"":""x""}","{""text"":""a,b\\r\\n""}",'
        f'"{START:%Y-%m-%dT%H:%M:%SZ}","{{""a"":""1"",""b"":""2""}}",'
        '"aaaaaaaa-0000-4000-8000-00000000000f",1,"","false",""\r\n'
    )


def test_line_breaks_in_a_payload_of_another_producer_are_kept_and_counted(
    settings: ClickHouseSettings, tmp_path: Path
) -> None:
    store(settings, [make_event(number) for number in range(3)])
    client = connect(settings)
    payload = '{\r\n"a"\r\n:"b"\r\n}\r\n'
    database = settings.clickhouse_database
    client.command(
        f"INSERT INTO {database}.event_log SELECT * REPLACE (%(payload)s AS payload, generateUUIDv4() AS id)"
        f" FROM {database}.event_log",
        parameters={"payload": payload},
        use_database=False,
    )
    client.close()
    assert export_events(settings, ALL, tmp_path / "all.csv").rows == 6
    rows = _rows(tmp_path / "all.csv")
    assert [row["payload"] for row in rows].count(payload) == 3
    assert [event_json_from_row(row).splitlines() for row in rows] == [[event_json_from_row(row)] for row in rows]


def test_the_manifest_describes_the_export(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, awkward_events())
    request = replace(ALL, filter=ExportFilter(actions=("*",), success=True))
    result = export_events(settings, request, tmp_path / "all.csv.gz", requester="ann")
    stored = (tmp_path / "all.csv.gz").read_bytes()
    text = gzip.decompress(stored)
    manifest = json.loads((tmp_path / "all.csv.gz.manifest.json").read_text("utf-8"))
    assert manifest.pop("generated_at") <= format_timestamp(from_datetime(datetime.now(UTC)))
    assert re.fullmatch(r"auditstream \d+\.\d+\.\d+", manifest.pop("generated_by"))
    rows = [line + b"\r\n" for line in text.split(b"\r\n")[1:-1]]
    coordinates = {"topic": "audit.events", "topic_id": str(TOPIC_ID), "partition": 0}
    last = len(awkward_events()) - 1
    ledger = manifest.pop("ledger")
    assert ledger["balanced"]
    assert [(line["read"], line["stored"], line["last_offset"]) for line in ledger["partitions"]] == [
        (last + 1, last + 1, last)
    ]
    assert manifest == {
        "manifest_version": 1,
        "requester": "ann",
        "from": format_timestamp(ALL.start),
        "to": format_timestamp(ALL.end),
        "filter": {"action": ["*"], "success": True},
        "watermark": [{**coordinates, "last_offset": last}],
        "rows": len(rows),
        "truncated": False,
        "format": "csv",
        "profile": "raw",
        "compression": "gzip",
        "split_rows": None,
        "columns": list(FIELDS),
        "schema_sha256": hashlib.sha256(SCHEMA_JSON.encode()).hexdigest(),
        "catalog_sha256": catalog_sha256(),
        "retention_months": 12,
        "retention_notice": None,
        "signed_by": None,
        "rows_per_checksum": 1,
        "files": [
            {
                "name": "all.csv.gz",
                "rows": len(rows),
                "first_row": 1,
                "bytes": len(stored),
                "sha256": hashlib.sha256(stored).hexdigest(),
                "content_bytes": len(text),
                "content_sha256": hashlib.sha256(text).hexdigest(),
                "checksums": " ".join(f"{zlib.crc32(row):08x}" for row in rows),
            }
        ],
    }
    assert result.rows == len(rows) == len([event for event in awkward_events() if event.success])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv.gz", "all.csv.gz.manifest.json"]


def test_compressed_files_are_reproducible_and_contain_the_same_csv(
    settings: ClickHouseSettings, tmp_path: Path
) -> None:
    store(settings, awkward_events())
    for suffix in ("", ".gz", ".zst"):
        for name in ("a", "b"):
            export_events(settings, ALL, tmp_path / f"{name}.csv{suffix}")
        assert (tmp_path / f"a.csv{suffix}").read_bytes() == (tmp_path / f"b.csv{suffix}").read_bytes()
    plain = (tmp_path / "a.csv").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == plain
    assert zstd.decompress((tmp_path / "a.csv.zst").read_bytes()) == plain


def test_filters(settings: ClickHouseSettings, tmp_path: Path) -> None:
    stored = [make_event(number) for number in range(60)]
    store(settings, stored)
    path = tmp_path / "some.csv"

    def numbers(*matching: bool) -> set[int]:
        return {number for number, matches in enumerate(matching) if matches}

    assert _ids(settings, path) == set(range(60))
    assert _ids(settings, path, scope="org-2") == numbers(*(e.scope.id == "org-2" for e in stored if e.scope))
    assert _ids(settings, path, actor="user-3") == numbers(*(e.actor.id == "user-3" for e in stored))
    assert _ids(settings, path, target="target-10") == numbers(*(e.target.id == "target-10" for e in stored))
    assert _ids(settings, path, request="request-7") == {14, 15}
    assert _ids(settings, path, success=False) == {9, 19, 29, 39, 49, 59}
    assert _ids(settings, path, success=False, actor="user-2") == {9}
    assert _ids(settings, path, scope="org-") == set()
    within = {number for number, event in enumerate(stored) if event.scope and event.scope.id in {"org-0", "org-1"}}
    assert _ids(settings, path, scopes=("org-1", "org-0")) == within
    assert _ids(settings, path, scopes=("org-1", "org-0"), scope="org-2") == set()
    assert _ids(settings, path, metadata=(("region", "eu-central-1"),)) == set(range(60))
    assert _ids(settings, path, metadata=(("region", "eu"),)) == _ids(settings, path, metadata=(("x", ""),)) == set()
    assert _ids(settings, path, text="EVENT 17") == {17}
    assert _ids(settings, path, text="vent") == set()


def test_ids_in_a_filter_are_compared_literally(settings: ClickHouseSettings, tmp_path: Path) -> None:
    ids = ["a'b", 'a"b', "a\\b", "a\\\\n", "a\\n", "a\tb\nc\rd", "{x:String}", "%", "a\bé👩‍🚀", "\\N", "NULL", " ", "a"]
    store(settings, [make_event(number, actor={"id": ids[number], "type": "user"}) for number in range(len(ids))])
    for number, awkward in enumerate(ids):
        assert _ids(settings, tmp_path / "one.csv", actor=awkward) == {number}


def test_globs(settings: ClickHouseSettings, tmp_path: Path) -> None:
    actions = ["context.create", "context.env_var.delete", "context.env-var.delete", "xcontext.create", "a.b", "aa.b"]
    store(settings, [make_event(number, action=action) for number, action in enumerate(actions)])
    path = tmp_path / "some.csv"
    assert _ids(settings, path, actions=("*",)) == {0, 1, 2, 3, 4, 5}
    assert _ids(settings, path, actions=("context.*",)) == {0, 1, 2}
    assert _ids(settings, path, actions=("*.delete",)) == {1, 2}
    assert _ids(settings, path, actions=("context.env_var.delete",)) == {1}
    assert _ids(settings, path, actions=("context.env?var.*",)) == {1, 2}
    assert _ids(settings, path, actions=("?.b",)) == {4}
    assert _ids(settings, path, actions=("context",)) == set()
    assert _ids(settings, path, actions=("%",)) == set()
    assert _ids(settings, path, actions=("a.b", "x*")) == {3, 4}


def test_the_range_includes_its_begin_and_not_its_end(settings: ClickHouseSettings, tmp_path: Path) -> None:
    begin = from_datetime(START)
    moments = [begin - 1, begin, begin + 1, begin + 5]
    store(settings, [replace(make_event(number), occurred_at=moment) for number, moment in enumerate(moments)])
    export_events(settings, ExportRequest(start=begin, end=begin + 5), tmp_path / "some.csv")
    assert [json.loads(row["payload"])["number"] for row in _rows(tmp_path / "some.csv")] == [1, 2]


def test_a_row_that_is_stored_twice_is_exported_once(settings: ClickHouseSettings, tmp_path: Path) -> None:
    stored = [make_event(number) for number in range(5)]
    store(settings, stored)
    store(settings, stored)
    assert export_events(settings, ALL, tmp_path / "all.csv").rows == 5
    assert _events(tmp_path / "all.csv") == stored


def test_an_export_without_events_is_a_header(settings: ClickHouseSettings, tmp_path: Path) -> None:
    result = export_events(settings, ALL, tmp_path / "none.csv")
    assert (result.rows, result.files[0].rows) == (0, 0)
    assert (tmp_path / "none.csv").read_bytes() == b",".join(name.encode() for name in FIELDS) + b"\r\n"


def test_progress_ends_at_the_total(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, [make_event(number) for number in range(50)])
    seen: list[tuple[int, int]] = []
    export_events(settings, ALL, tmp_path / "all.csv", progress=lambda rows, total: seen.append((rows, total)))
    assert seen[0] == (0, 50)
    assert seen[-1] == (50, 50)
    assert seen == sorted(seen)


def test_an_existing_file_is_overwritten_only_on_request(settings: ClickHouseSettings, tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("precious")
    with pytest.raises(ExportError, match=r"all\.csv exists"):
        export_events(settings, ALL, path)
    assert path.read_text() == "precious"
    store(settings, [make_event(0)])
    export_events(settings, ALL, path, overwrite=True)
    assert _events(path) == [make_event(0)]


def test_a_part_file_without_a_journal_is_not_overwritten(settings: ClickHouseSettings, tmp_path: Path) -> None:
    (tmp_path / "all.csv.part").write_text("of another export")
    with pytest.raises(ExportError, match=r"all\.csv\.part exists, but belongs to no known export"):
        export_events(settings, ALL, tmp_path / "all.csv", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["all.csv.part"]


def test_the_command_prints_rows_hash_and_file(tenant: Tenant, settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, [make_event(number) for number in range(12)])
    ended = _export(tenant, tmp_path, "--from", f"{START:%Y-%m-%d}", "--to", "2200-01-01", "-o", "all.csv")
    digest = hashlib.sha256((tmp_path / "all.csv").read_bytes()).hexdigest()
    assert (ended.returncode, ended.stdout) == (0, f"12 rows, SHA-256 {digest}, all.csv\n")
    assert ended.stderr == ""


def test_the_command_takes_every_condition(tenant: Tenant, settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, [make_event(number) for number in range(60)])
    conditions = "--scope org-0 --action user.* --action context.? --actor user-2 --target target-9 --request request-4"
    ended = _export(
        tenant, tmp_path, "--from", f"{START:%Y-%m-%dT%H:%M:%S}+00:00", "--to", "2200-01-01",
        *conditions.split(), "--success", "false", "--json", "-o", "one.csv.gz",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert (result["rows"], result["files"][0]["name"]) == (1, "one.csv.gz")
    assert result["manifest"] == "one.csv.gz.manifest.json"
    assert json.loads((tmp_path / "one.csv.gz.manifest.json").read_text())["filter"] == {
        "action": ["user.*", "context.?"],
        "scope": "org-0",
        "actor": "user-2",
        "target": "target-9",
        "request": "request-4",
        "success": False,
    }


def test_the_command_writes_to_standard_output(tenant: Tenant, settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, awkward_events())
    export_events(settings, ALL, tmp_path / "all.csv")
    ended = subprocess.run(
        ["auditstream", "export", "--from", f"{START:%Y-%m-%d}", "--to", "2200-01-01", "-o", "-"],
        env=_environment(tenant), capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert ended.stdout == (tmp_path / "all.csv").read_bytes()
    assert b"rows, SHA-256" in ended.stderr


def test_the_command_says_that_nothing_matched_and_how_long_events_are_kept(tenant: Tenant, tmp_path: Path) -> None:
    ended = _export(tenant, tmp_path, "--from", "2001-01-01", "--to", "2001-01-02", "-o", "none.csv")
    assert ended.returncode == 0
    assert "no event matches" in ended.stderr
    assert "events are kept for 12 months" in ended.stderr
    manifest = json.loads((tmp_path / "none.csv.manifest.json").read_text())
    assert "12 months" in manifest["retention_notice"]


def _environment(tenant: Tenant) -> dict[str, str]:
    return {**os.environ, **tenant.env, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _export(tenant: Tenant, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["auditstream", "export", *arguments],
        env=_environment(tenant), cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
