"""Helpers for tests of export jobs."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from auditstream_export import Exporter, ExportFilter, ExportJob, ExportJobs, ExportRequest, JobSettings
from auditstream_export.files import open_directory
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_export.jobs.job_run import JobRun
from auditstream_export.jobs.job_store import JobStore
from auditstream_local.server import with_lifeline
from auditstream_schemas.event import AuditEvent, Entity
from auditstream_schemas.timestamp import from_datetime
from tests.support.events import START
from tests.support.fix_stack import Tenant

ALL = ExportRequest(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))
ANN = Entity(id="ann", type="user", name="Ann")
IDLE_SECONDS = 1.0


def job_settings(tenant: Tenant, target: Path | str, **changes: object) -> JobSettings:
    values: dict[str, object] = {
        "kafka_bootstrap_servers": tenant.endpoints.bootstrap_servers,
        **vars(tenant.clickhouse("exporter")),
        "topic": tenant.topic,
        "export_group": f"{tenant.topic}-exporter",
        "export_target": str(target),
        "session_timeout_ms": int(tenant.env["AUDITSTREAM_SESSION_TIMEOUT_MS"]),
    }
    return JobSettings(**{**values, **changes})  # type: ignore[arg-type]


class Emitted(list[AuditEvent]):
    """The audit events about exports; stands in for the producer."""

    def __call__(self, event: AuditEvent) -> None:
        self.append(event)

    def actions(self) -> list[str]:
        return [event.action.removeprefix("audit_log.export.") for event in self]


def scoped(scope: str) -> ExportRequest:
    return replace(ALL, filter=ExportFilter(scopes=(scope,)))


def service(settings: JobSettings, emitted: Emitted | None = None) -> ExportJobs:
    return ExportJobs(settings, Emitted() if emitted is None else emitted)


def run_exporter(settings: JobSettings, emitted: Emitted | None = None, **options: object) -> list[ExportJob]:
    """Run an exporter in this process until all jobs have ended; return the jobs that ended in it."""
    ended: list[ExportJob] = []
    exporter = Exporter(
        settings,
        Emitted() if emitted is None else emitted,
        on_ended=ended.append,
        **options,  # type: ignore[arg-type]
    )
    exporter.run(until_idle=IDLE_SECONDS)
    return ended


def existing(jobs: ExportJobs, id: UUID) -> ExportJob:
    job = jobs.job(id)
    assert job is not None
    return job


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def start_exporter(tenant: Tenant, target: Path, **environment: str) -> subprocess.Popen[str]:
    """Start an exporter process that makes a checkpoint after every hour of events. It ends with this process."""
    lifeline = with_lifeline()
    return subprocess.Popen(
        [*lifeline, sys.executable, "-c", _EXPORTER],
        env={**os.environ, **job_environment(tenant, target), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def job_environment(tenant: Tenant, target: Path) -> dict[str, str]:
    """Variables of commands that use a tenant's jobs."""
    return {
        **tenant.env_of("exporter"),
        "AUDITSTREAM_EXPORT_TARGET": str(target),
        "AUDITSTREAM_EXPORT_GROUP": job_settings(tenant, target).export_group,
    }


_EXPORTER = """
from auditstream_export import Exporter, JobSettings
from auditstream_schemas.settings import load
Exporter(load(JobSettings), print, slice_rows=1).run()
"""


class Attempt:
    """One exporter's attempt at a job, in a thread."""

    def __init__(
        self, settings: JobSettings, job: ExportJob, *, worker: str = "w", emitted: Emitted | None = None
    ) -> None:
        self.run = JobRun(
            job=job,
            settings=settings,
            store=JobStore(settings),
            directory=open_directory(settings.export_target, settings),
            audit=JobAudit(Emitted() if emitted is None else emitted, scope_type="organization", clock=time.time_ns),
            worker=worker,
            clock=time.time_ns,
            slice_rows=1,
        )
        pool = ThreadPoolExecutor(1)
        self.outcome = pool.submit(self.run.run)
        pool.shutdown(wait=False)
