"""An export up to a watermark has the same bytes, whatever has arrived since."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner

from auditstream_export import ExportFilter, ExportRequest, OutputFormat, Position, Watermark, export_events
from auditstream_export.query.snapshot import Snapshot
from auditstream_ops.commands.export import export
from auditstream_schemas.errors import ExportError
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import from_datetime
from tests.support.events import START, make_event
from tests.support.fix_stack import Tenant
from tests.support.stored_events import TOPIC_ID, connect, store

ALL = ExportRequest(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))
NEW_TOPIC = UUID(int=2)


@pytest.fixture
def settings(tenant: Tenant) -> ClickHouseSettings:
    return tenant.clickhouse("exporter")


def _spread(count: int) -> list[AuditEvent]:
    return [make_event(number, occurred_at=START + timedelta(minutes=number)) for number in range(count)]


def _run(settings: ClickHouseSettings, *statements: str) -> None:
    with connect(settings) as client:
        for sql in statements:
            client.command(sql.format(database=settings.clickhouse_database), use_database=False)


def _note_copies(settings: ClickHouseSettings, *copies: tuple[AuditEvent, int, int]) -> None:
    """Insert the copies that the sink notes of events that are stored from several coordinates."""
    rows = ", ".join(f"('{TOPIC_ID}', {partition}, {offset}, '{event.id}')" for event, partition, offset in copies)
    _run(settings, f"INSERT INTO {{database}}.copies VALUES {rows}")


def _exported(settings: ClickHouseSettings, path: Path, watermark: Watermark | None = None) -> Watermark:
    return export_events(settings, ALL, path, watermark=watermark, overwrite=True).watermark


def test_an_export_up_to_a_watermark_is_reproducible(settings: ClickHouseSettings, tmp_path: Path) -> None:
    early = _spread(200)
    unaccounted, elsewhere = make_event(900), make_event(901)
    store(settings, early)
    # Stored and in the ledger from partition 1; stored from partition 2, too, whose ledger has not reached it.
    store(settings, [elsewhere], partition=1, offsets=[7])
    store(settings, [make_event(902)], partition=2, offsets=[0])
    # Inserted, but not in the ledger yet.
    store(settings, [unaccounted], partition=2, offsets=[1], in_ledger=False)
    first = {suffix: tmp_path / f"first.csv{suffix}" for suffix in ("", ".gz", ".zst")}
    for path in first.values():
        watermark = _exported(settings, path)
    assert {(end.partition, end.last_offset) for end in watermark.positions} == {(0, 199), (1, 7), (2, 0)}

    # The ledger catches up.
    _run(
        settings,
        "INSERT INTO {database}.ledger (topic, topic_id, partition, first_offset, last_offset, read, stored, "
        f"fencing_time) VALUES ('audit.events', '{TOPIC_ID}', 2, 1, 1, 1, 1, 1)",
    )
    # New events in the middle of the old ones, on old partitions and on a new one.
    store(settings, [make_event(1000 + number, occurred_at=START + timedelta(minutes=number)) for number in range(50)])
    store(settings, [make_event(2000)], partition=3)
    # A late insert of a suspended sink: rows that are stored already, from the same coordinates.
    store(settings, early[:50], offsets=range(50), in_ledger=False, ingested_at=datetime.now(UTC) - timedelta(hours=1))
    # Two sinks stored it at once; the view shows it from beyond the watermark.
    store(settings, [elsewhere], partition=2, offsets=[90])
    _note_copies(settings, (elsewhere, 1, 7), (elsewhere, 2, 90))
    # An event that came later from two coordinates, both beyond the watermark.
    store(settings, [make_event(2001)], partition=2, offsets=[91])
    store(settings, [make_event(2001)], partition=3, offsets=[9])
    _note_copies(settings, (make_event(2001), 2, 91), (make_event(2001), 3, 9))
    # The topic was deleted and created anew: its offsets begin at 0 again.
    store(settings, [make_event(3000 + number) for number in range(20)], topic_id=NEW_TOPIC)
    for merge in (
        "SYSTEM FLUSH LOGS",
        "OPTIMIZE TABLE {database}.event_log FINAL",
        "OPTIMIZE TABLE {database}.ledger FINAL",
    ):
        _run(settings, merge)

    for suffix, path in first.items():
        again = tmp_path / f"again.csv{suffix}"
        assert _exported(settings, again, watermark) == watermark
        assert again.read_bytes() == path.read_bytes()
    _exported(settings, tmp_path / "now.csv")
    assert len((tmp_path / "now.csv").read_bytes()) > len(first[""].read_bytes())


def test_other_content_of_an_id_beyond_the_watermark_is_not_exported(
    settings: ClickHouseSettings, tmp_path: Path
) -> None:
    event = make_event(1)
    store(settings, [event])
    watermark = _exported(settings, tmp_path / "first.csv")
    store(settings, [event], partition=1)
    _note_copies(settings, (event, 0, 0), (event, 1, 0))
    store(settings, [make_event(1, payload={"other": True})], partition=2)
    _exported(settings, tmp_path / "again.csv", watermark)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "first.csv").read_bytes()


def test_slices_together_are_the_ordered_export(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, reversed(_spread(1000)))
    _exported(settings, tmp_path / "one.csv")
    with connect(settings) as client:
        snapshot = Snapshot(
            client, ALL, database=settings.clickhouse_database, output_format=OutputFormat(), slice_rows=100
        )
        chunks = []
        for part in snapshot.slices:
            chunks += list(snapshot.records(part))
            # What arrives between them is beyond the watermark.
            store(settings, [make_event(5000 + len(chunks), occurred_at=START + timedelta(minutes=999))])
    assert (len(snapshot.slices), snapshot.rows) == (16, 1000)
    assert sum(len(chunk.starts) for chunk in chunks) == 1000
    assert (tmp_path / "one.csv").read_bytes().endswith(b"".join(chunk.data for chunk in chunks))


def test_an_export_is_repeated_from_its_manifest(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, _spread(50))
    export_request = replace(ALL, filter=ExportFilter(success=True, actions=("user.*",)))
    export_events(settings, export_request, tmp_path / "first.csv")
    store(settings, [make_event(100)])
    manifest = json.loads((tmp_path / "first.csv.manifest.json").read_text("utf-8"))
    request, watermark = ExportRequest.from_dict(manifest), Watermark.from_json(manifest)
    assert request == export_request
    export_events(settings, request, tmp_path / "again.csv", watermark=watermark, repeats=manifest)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "first.csv").read_bytes()
    again = json.loads((tmp_path / "again.csv.manifest.json").read_text("utf-8"))
    assert again["ledger"] == manifest["ledger"]


def test_a_repeated_export_with_missing_events_fails_and_leaves_no_file(
    settings: ClickHouseSettings, tmp_path: Path
) -> None:
    """As when a month falls behind the retention."""
    old = replace(ALL, start=from_datetime(datetime.now(UTC) - timedelta(days=800)))
    store(settings, _spread(50))
    export_events(settings, old, tmp_path / "first.csv")
    manifest = json.loads((tmp_path / "first.csv.manifest.json").read_text("utf-8"))
    _run(settings, "ALTER TABLE {database}.event_log DELETE WHERE kafka_offset < 10 SETTINGS mutations_sync = 2")
    watermark = Watermark.from_json(manifest)
    with pytest.raises(
        ExportError, match=r"it had 50 rows, now there are 40; the range begins at .* are deleted already"
    ):
        export_events(settings, old, tmp_path / "again.csv", watermark=watermark, repeats=manifest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.csv", "first.csv.manifest.json"]


def test_a_watermark_that_the_ledger_does_not_reach_is_refused(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, _spread(5))
    for coordinates in ({"topic_id": TOPIC_ID, "last_offset": 5}, {"topic_id": NEW_TOPIC, "last_offset": 0}):
        position = Position(**{"topic": "audit.events", "partition": 0, **coordinates})  # type: ignore[arg-type]
        with pytest.raises(ExportError, match=r"the ledger ends at (4|none)"):
            _exported(settings, tmp_path / "all.csv", Watermark(positions=(position,)))


def test_a_ledger_that_does_not_balance_is_in_the_manifest(settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, _spread(5))
    store(settings, [make_event(7)], offsets=[9])
    assert not export_events(settings, ALL, tmp_path / "all.csv").balanced
    ledger = json.loads((tmp_path / "all.csv.manifest.json").read_text("utf-8"))["ledger"]
    assert [(line["breaks"], line["balanced"]) for line in ledger["partitions"]] == [(1, False)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ledger["partitions"][0]["last_at"])


def _command(tenant: Tenant, folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "auditstream_ops", "export", *arguments],
        env={**os.environ, **tenant.env, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_signs_repeats_and_verifies(tenant: Tenant, settings: ClickHouseSettings, tmp_path: Path) -> None:
    store(settings, _spread(30))
    made = _command(tenant, tmp_path, "keygen", "key.pem")
    key_id = made.stdout.rpartition(" ")[2].strip()
    signing = {"AUDITSTREAM_EXPORT_KEY_FILE": "key.pem"}
    whole = ("--from", f"{START:%Y-%m-%d}", "--to", "2200-01-01")
    first = _command(
        tenant, tmp_path, *whole, "--scope", "org-1", "--profile", "spreadsheet", "--split-rows", "4",
        "--requester", "ann@acme", "-o", "first.csv.gz", **signing,
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    names = [f"first-{number:05d}.csv.gz" for number in (1, 2, 3)]
    assert re.findall(r"^(\d) rows, SHA-256 [0-9a-f]{64}, (.*)$", first.stdout, re.MULTILINE) == [
        ("4", names[0]),
        ("4", names[1]),
        ("2", names[2]),
    ]
    manifest = json.loads((tmp_path / "first.csv.gz.manifest.json").read_text("utf-8"))
    assert (manifest["requester"], manifest["signed_by"]["key_id"]) == ("ann@acme", key_id)

    store(settings, [make_event(100 + number) for number in range(9)])
    again = _command(tenant, tmp_path, "--watermark", "first.csv.gz.manifest.json", "-o", "again.csv.gz")
    assert again.returncode == 0, again.stderr
    for name in names:
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("first", "again")).read_bytes()
    # Another export up to the same offsets.
    other = _command(tenant, tmp_path, *whole, "--watermark", "first.csv.gz.manifest.json", "-o", "all.ndjson")
    assert other.stdout.startswith("30 rows, "), other.stderr

    trusting = ("verify", "--key-id", key_id)
    sound = _command(tenant, tmp_path, *trusting, *names)
    assert (sound.returncode, sound.stdout.count("as they were exported")) == (0, 3)
    unsigned = _command(tenant, tmp_path, *trusting, "again.csv.gz.manifest.json")
    assert (unsigned.returncode, "is not signed" in unsigned.stdout) == (4, True)
    (tmp_path / names[0]).write_bytes((tmp_path / names[1]).read_bytes())
    differing = _command(tenant, tmp_path, *trusting, "--against", "again-00001.csv.gz", names[0])
    assert differing.returncode == 3
    assert f"row 1 (event {make_event(13).id}) is not in the other copy" in differing.stdout
    assert f"(event {make_event(1).id}) is only in the other copy" in differing.stdout
    gone = _command(tenant, tmp_path, *trusting, "nothing.csv")
    assert (gone.returncode, gone.stderr.startswith("auditstream: there is no nothing.csv.manifest.json")) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "x.csv"), "missing option '--from'"),
        (("--from", "2026-01-01", "-o", "x.csv"), "missing option '--to'"),
        (("--from", "2026-01-01", "--to", "2026-02-01"), "missing option '-o' / '--output'"),
        (("--watermark", "m.json", "--scope", "a", "-o", "x.csv"), "has the filter of its manifest"),
        (("--watermark", "m.json", "-o", "x.ndjson"), "the export of that manifest is csv"),
    ],
)
def test_a_missing_option_is_an_error(
    tmp_path: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = {**ALL.to_dict(), "watermark": [], "format": "csv", "profile": "raw", "split_rows": None}
    (tmp_path / "m.json").write_text(json.dumps(manifest), "utf-8")
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(export, arguments)
    assert (ended.exit_code, message in ended.stderr) == (2, True), ended.output
