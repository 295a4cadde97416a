"""Export jobs: item job ends once with a known state, whichever process dies, is suspended or is unreachable."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import boto3
import pytest
from confluent_kafka.admin import AdminClient

from auditstream_export import Exporter, ExportFilter, ExportJob, ExportJobs, JobSettings, OutputFormat, export_events
from auditstream_export.jobs.job_run import JobInterruptedError
from auditstream_export.jobs.job_store import JobStore
from auditstream_export.verify import make_key, verify_export
from auditstream_ops.deploy.topics import TopicPlan, create_topics
from auditstream_schemas.catalog import validate_payload
from auditstream_schemas.errors import ExportDeniedError, ExportError
from auditstream_schemas.event import Request
from auditstream_schemas.settings import KafkaSettings
from tests.support.events import START, make_event
from tests.support.export_jobs import (
    ALL,
    ANN,
    Attempt,
    Emitted,
    existing,
    files_below,
    job_environment,
    job_settings,
    run_exporter,
    scoped,
    service,
    start_exporter,
)
from tests.support.fix_stack import Tenant
from tests.support.pipeline import count, run_sink
from tests.support.relay import Send, relay
from tests.support.s3_server import s3_server
from tests.support.stored_events import store
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

HOURS = 4
EVENTS = 120
DAY_NS = 24 * 3600 * 1_000_000_000


@pytest.fixture
def settings(tenant: Tenant, tmp_path: Path) -> Iterator[JobSettings]:
    settings = job_settings(tenant, tmp_path / "exports")
    kafka = KafkaSettings(kafka_bootstrap_servers=settings.kafka_bootstrap_servers, topic=settings.topic)
    create_topics(
        kafka, TopicPlan(request_partitions=4), dead_letter_topic=tenant.dlq_topic, request_topic=settings.requests
    )
    moments = (START + timedelta(hours=number % HOURS, seconds=number) for number in range(EVENTS))
    store(settings, [make_event(number, occurred_at=moment) for number, moment in enumerate(moments)])
    yield settings
    admin = AdminClient(kafka.librdkafka_client("tests"))
    admin.delete_topics([settings.requests])[settings.requests].result(30)


@pytest.fixture
def target(settings: JobSettings) -> Path:
    return Path(settings.export_target)


class Stall:
    """Delays the n-th answer of ClickHouse until `go_on` is set."""

    def __init__(self, number: int) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.answers = 0
        self._number = number

    def __call__(self, body: bytes, send: Send) -> bool:
        self.answers += 1
        if self.answers == self._number:
            self.reached.set()
            self.go_on.wait(60)
        send(body)
        return True


def test_two_exporters_run_each_of_ten_jobs_once(settings: JobSettings, target: Path, tmp_path: Path) -> None:
    settings = replace(settings, export_key_file=tmp_path / "key.pem")
    key = make_key(tmp_path / "key.pem")
    emitted = Emitted()
    jobs = service(settings, emitted)
    formats = [
        OutputFormat(),
        OutputFormat(format="ndjson"),
        OutputFormat(format="parquet"),
        OutputFormat(profile="spreadsheet"),
        OutputFormat(),
    ]
    requested = [
        jobs.request(scoped(f"org-{number % 3}"), requester=ANN, output_format=formats[number % 5], label=str(number))
        for number in range(10)
    ]
    ended: list[ExportJob] = []
    exporters = [Exporter(settings, emitted, on_ended=ended.append) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda exporter: exporter.run(until_idle=1.0), exporters))
    assert Counter(job.id for job in ended) == Counter(job.id for job in requested)
    stored_jobs = jobs.jobs(None)
    assert [job.id for job in stored_jobs] == [job.id for job in reversed(requested)]
    assert {job.state for job in stored_jobs} == {"finished"}
    assert {job.rows for job in stored_jobs} == {EVENTS // 3}
    assert [job.label for job in stored_jobs] == [str(number) for number in reversed(range(10))]
    assert {job.id for job in jobs.jobs(["org-1", "org-x"])} == {
        job.id for job in stored_jobs if job.scopes == ("org-1",)
    }
    for job in stored_jobs:
        assert [file.name for file in job.files] == [
            job.name,
            f"{job.name}.manifest.json",
            f"{job.name}.manifest.json.sig",
        ]
        assert files_below(target / str(job.id)) == sorted(file.name for file in job.files)
        checked = verify_export(target / job.directory / job.manifest, trusted=[key])
        assert checked.is_sound
        assert checked.signature.state == "trusted"
        assert json.loads((target / job.directory / job.manifest).read_bytes())["requester"] == "ann"
    assert Counter(emitted.actions()) == {"request": 10, "finish": 10}
    for event in emitted:
        validate_payload(event, strict=True)
        assert event.scope is not None
        job = next(job for job in stored_jobs if str(job.id) == event.target.id)
        assert event.scope.id == job.scopes[0]
    sums = {json.loads(event.payload)["sha256"] for event in emitted if event.action.endswith("finish")}
    assert sums == {job.files[0].sha256 for job in stored_jobs}


def test_after_sigkill_the_next_exporter_resumes_up_to_the_same_watermark(
    tenant: Tenant, settings: JobSettings, target: Path, tmp_path: Path
) -> None:
    export_events(settings, ALL, tmp_path / "whole.csv.gz", slice_rows=1)
    jobs = service(settings)
    job = jobs.request(ALL, requester=ANN, suffix=".gz")
    stall, after = Stall(3), Stall(0)
    with relay(settings.clickhouse_url, stall) as url:
        process = start_exporter(tenant, target, AUDITSTREAM_CLICKHOUSE_URL=url)
        assert stall.reached.wait(60)
        journals = list(target.rglob("*.journal"))
        eventually(lambda: '"slices_done": 2' in journals[0].read_text(), "two slices are written")
        running = existing(jobs, job.id)
        assert (running.state, running.total, running.watermark is not None) == ("running", EVENTS, True)
        process.kill()
        process.communicate()
        stall.go_on.set()
    store(settings, [make_event(1000)])
    with relay(settings.clickhouse_url, after) as url:
        ended = run_exporter(replace(settings, clickhouse_url=url), slice_rows=1)
    finished = existing(jobs, job.id)
    assert [(ended_job.id, ended_job.state) for ended_job in ended] == [(job.id, "finished")]
    assert (finished.state, finished.rows, finished.watermark) == ("finished", EVENTS, running.watermark)
    assert finished.worker != running.worker
    # Of four slices two had been written.
    assert after.answers == 2
    assert files_below(target) == [job.name, f"{job.name}.manifest.json"]
    assert (target / finished.directory / job.name).read_bytes() == (tmp_path / "whole.csv.gz").read_bytes()


def test_a_suspended_exporter_that_lost_its_lease_changes_nothing(settings: JobSettings, target: Path) -> None:
    jobs, emitted = service(settings), Emitted()
    job = jobs.request(ALL, requester=ANN)
    stall = Stall(2)
    with relay(settings.clickhouse_url, stall) as url:
        sleeper = Attempt(replace(settings, clickhouse_url=url), job, worker="sleeper", emitted=emitted)
        assert stall.reached.wait(60)
        directory = existing(jobs, job.id).directory
        finished = Attempt(settings, job, worker="successor", emitted=emitted).outcome.result(60)
        assert finished.directory != directory
        stall.go_on.set()
        with pytest.raises(JobInterruptedError, match="was taken over by successor"):
            sleeper.outcome.result(60)
    assert existing(jobs, job.id) == finished
    assert files_below(target) == [job.name, f"{job.name}.manifest.json"]
    # If the offset was not committed, a third exporter emits the same event again.
    assert Attempt(settings, job, worker="third", emitted=emitted).outcome.result(60) == finished
    assert emitted.actions() == ["finish", "finish"]
    assert emitted[0] == emitted[1]


def test_a_running_job_is_cancelled_and_retried(settings: JobSettings, target: Path) -> None:
    emitted = Emitted()
    jobs = service(settings, emitted)
    job = jobs.request(scoped("org-1"), requester=ANN)
    stall = Stall(2)
    with relay(settings.clickhouse_url, stall) as url:
        attempt = Attempt(replace(settings, clickhouse_url=url), job)
        assert stall.reached.wait(60)
        assert jobs.cancel(job.id, by=ANN).state == "cancelled"
        stall.go_on.set()
        assert attempt.outcome.result(60).state == "cancelled"
    first = existing(jobs, job.id)
    assert (first.state, first.error, files_below(target)) == ("cancelled", "", [])
    assert jobs.cancel(job.id, by=ANN) == first
    with pytest.raises(ExportError, match="is cancelled: it has no files"), jobs.open(job.id, by=ANN):
        pass
    store(settings, [make_event(1000)])
    again = jobs.retry(job.id, by=ANN)
    assert (again.state, again.watermark) == ("queued", first.watermark)
    assert Attempt(settings, job).outcome.result(60).rows == EVENTS // 3
    queued = jobs.request(scoped("org-1"), requester=ANN)
    jobs.cancel(queued.id, by=ANN)
    assert Attempt(settings, queued).outcome.result(60).state == "cancelled"
    with pytest.raises(ExportError, match="is finished: only a failed or cancelled export"):
        jobs.retry(job.id, by=ANN)
    assert emitted.actions() == ["request", "cancel", "request", "request", "cancel"]


def test_the_quota_applies_to_requests_and_to_runs(settings: JobSettings, target: Path) -> None:
    emitted = Emitted()
    two = replace(settings, export_quota=2)
    jobs = service(two, emitted)
    requested = [jobs.request(scoped("org-1"), requester=ANN) for _ in range(2)]
    with pytest.raises(ExportDeniedError, match="2 exports were requested for org-1 today, which is the quota"):
        jobs.request(
            replace(ALL, filter=ExportFilter(scopes=("org-2", "org-1"))), requester=ANN, request=Request(id="r")
        )
    assert (emitted[-1].action, emitted[-1].success, emitted[-1].request) == (
        "audit_log.export.deny",
        False,
        Request(id="r"),
    )
    other = jobs.request(scoped("org-2"), requester=ANN)
    slipped = service(replace(settings, export_quota=0)).request(scoped("org-1"), requester=ANN)
    states = {
        job.id: Attempt(two, job, emitted=emitted).outcome.result(60).state for job in (slipped, other, *requested)
    }
    assert states == {
        slipped.id: "failed",
        other.id: "finished",
        requested[0].id: "finished",
        requested[1].id: "finished",
    }
    assert "which is the quota" in existing(jobs, slipped.id).error
    assert not (target / str(slipped.id)).exists()
    assert emitted.actions()[-5:] == ["deny", "finish", "finish", "finish", "finish"]
    # It is the first of the next day.
    tomorrow = ExportJobs(two, emitted, clock=lambda: time.time_ns() + DAY_NS)
    assert tomorrow.request(scoped("org-1"), requester=ANN).state == "queued"


def test_files_of_an_expired_job_are_deleted(settings: JobSettings, target: Path) -> None:
    jobs = service(settings)
    job = jobs.request(ALL, requester=ANN)
    assert Attempt(settings, job).outcome.result(60).state == "finished"
    with jobs.open(job.id, by=ANN) as file:
        content = b"".join(file.pieces)
    assert (len(content), file.size, file.media_type) == (job_bytes(jobs, job), len(content), "text/csv; charset=utf-8")
    later = time.time_ns() + 31 * DAY_NS
    late = ExportJobs(settings, Emitted(), clock=lambda: later)
    with pytest.raises(ExportError, match="is expired: it has no files"), late.open(job.id, by=ANN):
        pass
    assert JobStore(settings).expired(later - 2 * DAY_NS) == []
    # Its request was not committed; read again, it changes nothing.
    assert [item.id for item in run_exporter(settings, clock=lambda: later)] == [job.id]
    assert (existing(jobs, job.id).state, existing(jobs, job.id).rows, files_below(target)) == ("expired", EVENTS, [])


def job_bytes(jobs: ExportJobs, job: ExportJob) -> int:
    return existing(jobs, job.id).bytes


def test_a_job_waits_while_clickhouse_is_down(
    settings: JobSettings, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = service(settings)
    job = jobs.request(ALL, requester=ANN)
    with TcpProxy(settings.clickhouse_url.partition("//")[2]) as proxy:
        stall = Stall(2)
        with relay(f"http://{proxy.address}", stall) as url:
            attempt = Attempt(replace(settings, clickhouse_url=url), job)
            assert stall.reached.wait(60)
            proxy.refuse()
            proxy.cut()
            stall.go_on.set()
            eventually(lambda: f"export {job.id} waits: " in caplog.text, "the job waits")
            assert (attempt.outcome.done(), existing(jobs, job.id).state) == (False, "running")
            proxy.heal()
            assert attempt.outcome.result(60).state == "finished"
    assert files_below(target) == [job.name, f"{job.name}.manifest.json"]


def test_a_full_disk_fails_the_job_and_leaves_no_files(settings: JobSettings, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    try:
        emitted = Emitted()
        jobs = service(settings)
        job = jobs.request(ALL, requester=ANN)
        full = replace(settings, export_target=str(disk))
        failed = Attempt(full, job, emitted=emitted).outcome.result(60)
        assert (failed.state, list(disk.iterdir())) == ("failed", [])
        assert "No space left on device" in failed.error
        assert json.loads(emitted[0].payload) == {"rows": 0, "bytes": 0, "sha256": None, "error": failed.error}
        assert not emitted[0].success
        jobs.retry(job.id, by=ANN)
        assert Attempt(settings, job).outcome.result(60).state == "finished"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_jobs_write_to_a_bucket(
    tenant: Tenant, settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=tenant.database)
        bucket_settings = replace(
            settings, export_target=f"s3://{tenant.database}/jobs", export_spool_dir=tmp_path / "spool"
        )
        jobs = service(bucket_settings)
        job = jobs.request(ALL, requester=ANN, output_format=OutputFormat(split_rows=50))
        finished = Attempt(bucket_settings, job).outcome.result(60)
        rows = 0
        for file in finished.data:
            with jobs.open(job.id, by=ANN, name=file.name) as open_file:
                rows += len(list(csv.reader(b"".join(open_file.pieces).decode().splitlines()))) - 1
        assert (len(finished.data), rows) == (3, EVENTS)
        assert list((tmp_path / "spool").iterdir()) == []
        stopped = jobs.request(ALL, requester=ANN)
        stall = Stall(2)
        with relay(settings.clickhouse_url, stall) as url:
            attempt = Attempt(replace(bucket_settings, clickhouse_url=url), stopped)
            assert stall.reached.wait(60)
            jobs.cancel(stopped.id, by=ANN)
            stall.go_on.set()
            assert attempt.outcome.result(60).state == "cancelled"
        assert list((tmp_path / "spool").iterdir()) == []
        keys = [item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=tenant.database)["Contents"]]
        assert sorted(keys) == sorted(f"jobs/{finished.directory}/{item.name}" for item in finished.files)


def test_a_job_whose_request_cannot_be_sent_has_failed(settings: JobSettings) -> None:
    nowhere = service(replace(settings, export_topic="no.such.topic"))
    with pytest.raises(ExportError, match="auditstream topics"):
        nowhere.request(ALL, requester=ANN)
    assert [(job.state, job.worker) for job in nowhere.jobs(None)] == [("failed", "")]
    assert JobStore(settings).job(uuid4()) is None


def test_the_commands_request_run_and_fetch_and_are_recorded_in_the_audit_log(
    tenant: Tenant, settings: JobSettings, target: Path, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        **job_environment(tenant, target),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*arguments: str) -> str:
        ended = subprocess.run(
            ["auditstream", *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    days = ["--from", f"{START:%Y-%m-%d}", "--to", "2200-01-01"]
    requested = json.loads(
        run("export", "jobs", "request", *days, "--scope", "org-1", "--text", "event", "--requester", "ann", "--json")
    )
    assert requested["state"] == "queued"
    ended = json.loads(run("exporter", "--until-idle", "1", "--json"))
    assert (ended["id"], ended["state"], ended["rows"]) == (requested["id"], "finished", EVENTS // 3)
    assert existing(service(settings), UUID(requested["id"])).to_dict() == ended
    fetched = run("export", "jobs", "fetch", requested["id"], "-o", str(tmp_path), "--requester", "bea").splitlines()
    assert [path.name for path in map(Path, fetched)] == [item["name"] for item in ended["files"]]
    assert verify_export(Path(fetched[0])).is_sound
    run_sink(tenant)
    assert count(tenant) == EVENTS + 4
    own_filter = ExportFilter(scopes=("org-1",), actions=("audit_log.export.*",), target=requested["id"])
    export_events(settings, replace(ALL, filter=own_filter), tmp_path / "own.csv")
    with (tmp_path / "own.csv").open(newline="") as file:
        own = [(row["action"].rpartition(".")[2], json.loads(row["actor"])["id"]) for row in csv.DictReader(file)]
    assert own == [("request", "ann"), ("finish", ended["worker"]), ("download", "bea"), ("download", "bea")]
