"""Exports to S3-compatible storage, on a server of its API."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from auditstream_export import ExportRequest, ExportSettings, OutputFormat, export_events
from auditstream_export.verify import verify_export
from auditstream_schemas.errors import ExportError
from auditstream_schemas.timestamp import from_datetime
from tests.support.events import START, make_event
from tests.support.fix_stack import Tenant
from tests.support.s3_server import s3_server
from tests.support.stored_events import store

ALL = ExportRequest(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    with s3_server() as variables:
        yield variables


@pytest.fixture
def settings(
    tenant: Tenant, tmp_path: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> ExportSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return ExportSettings(
        clickhouse_url=tenant.endpoints.clickhouse_url,
        clickhouse_database=tenant.database,
        export_spool_dir=tmp_path / "spool",
    )


@pytest.fixture
def bucket(settings: ExportSettings) -> str:
    boto3.client("s3").create_bucket(Bucket=settings.clickhouse_database)
    return settings.clickhouse_database


def _objects(bucket: str) -> dict[str, int]:
    objects = boto3.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
    return {item["Key"]: item["Size"] for item in objects}


def test_a_bucket_gets_the_same_files_as_a_local_directory(
    settings: ExportSettings, bucket: str, tmp_path: Path
) -> None:
    store(settings, [make_event(number, payload={"text": os.urandom(40_000).hex()}) for number in range(150)])
    output_format = OutputFormat(split_rows=120)
    export_events(settings, ALL, tmp_path / "all.csv", output_format=output_format)
    result = export_events(settings, ALL, f"s3://{bucket}/2026/01/all.csv", output_format=output_format)
    names = ["all-00001.csv", "all-00002.csv", "all.csv.manifest.json"]
    assert result.manifest == f"s3://{bucket}/2026/01/all.csv.manifest.json"
    assert sorted(_objects(bucket)) == [f"2026/01/{name}" for name in names]
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for name in names:
        boto3.client("s3").download_file(bucket, f"2026/01/{name}", str(fetched / name))
    # Of two uploads' parts: an object of several has their number in its tag.
    assert boto3.client("s3").head_object(Bucket=bucket, Key="2026/01/all-00001.csv")["ETag"].strip('"').endswith("-2")
    for name in names[:2]:
        assert (fetched / name).read_bytes() == (tmp_path / name).read_bytes()
    assert verify_export(fetched / names[2]).is_sound
    assert list((tmp_path / "spool").iterdir()) == []
    with pytest.raises(ExportError, match=r"s3://.*/all-00001\.csv exists"):
        export_events(settings, ALL, f"s3://{bucket}/2026/01/all.csv", output_format=output_format)


def test_after_a_failed_upload_the_export_is_resumed_with_the_upload(settings: ExportSettings, bucket: str) -> None:
    store(settings, [make_event(number) for number in range(20)])
    later = f"{bucket}-later"
    target = f"s3://{later}/all.csv.zst"
    with pytest.raises(ExportError, match=rf"cannot write s3://{later}/.*: --resume uploads it"):
        export_events(settings, ALL, target)
    boto3.client("s3").create_bucket(Bucket=later)
    export_events(settings, ALL, target, resume=True)
    assert sorted(_objects(later)) == ["all.csv.zst", "all.csv.zst.manifest.json"]


def test_an_address_without_a_file_name_is_refused(settings: ExportSettings) -> None:
    for target in ("s3://", "s3://bucket", "s3://bucket/", "s3://bucket/folder/"):
        with pytest.raises(ExportError, match="names no file in a bucket"):
            export_events(settings, ALL, target)


def test_a_signal_ends_the_wait_for_storage_that_does_not_answer(
    tenant: Tenant, settings: ExportSettings, variables: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        where = {**tenant.env, **variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}"}
        command = [sys.executable, "-m", "auditstream_ops", "export", "--from", "2026-01-01", "--to", "2200-01-01"]
        export = subprocess.Popen(
            [*command, "--export-spool-dir", str(settings.export_spool_dir), "-o", "s3://bucket/all.csv"],
            env={**os.environ, **where},
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = deaf.accept()
        with connection:
            # Python drops an exception of a handler that runs while an object is being finalised: ask twice if need be.
            for seconds in (15, 30):
                export.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    export.wait(seconds)
                    break
            _, stderr = export.communicate(timeout=1)
    assert export.returncode == 143, stderr
