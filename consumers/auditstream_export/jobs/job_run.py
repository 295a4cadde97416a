"""One exporter's attempt at one job, from reading its state to emitting the audit event about its end.

The lease of the consumer group says which exporter may run a job, and can be wrong: a process that was suspended does
not know that it lost the lease. So each change of the state is read back. A later attempt writes higher versions; an
exporter that reads one leaves the job alone. Its own files are in a directory that no other attempt writes to.
"""

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from auditstream_export.export import ExportResult, export_events
from auditstream_export.files import Directory, is_resumable
from auditstream_export.jobs.export_job import ExportJob, JobFile
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_export.jobs.job_store import JobStore
from auditstream_export.jobs.quota import over_quota
from auditstream_export.settings import JobSettings
from auditstream_export.verify import manifest_name, signature_name
from auditstream_schemas.errors import (
    AuditstreamError,
    ExportDeniedError,
    ExportError,
    ExportSourceError,
    SettingsError,
)
from auditstream_schemas.timestamp import NANOSECONDS

_TRIES = 3
"""Tries of an export that fails although ClickHouse answers."""
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 15.0
_PROGRESS_INTERVAL = NANOSECONDS
_DAY = 24 * 3600 * NANOSECONDS

_T = TypeVar("_T")
_logger = logging.getLogger("auditstream.export")


class JobInterruptedError(AuditstreamError):
    """The job did not end in this attempt; the next exporter goes on with it."""


class LeaseLostError(JobInterruptedError):
    """Another exporter has taken over the job."""


class _CancelledError(AuditstreamError):
    """The job was cancelled."""


class JobRun:
    """Runs a job in the thread that calls `run`; `stop` may be called from another thread."""

    def __init__(
        self,
        job: ExportJob,
        *,
        settings: JobSettings,
        store: JobStore,
        directory: Directory,
        audit: JobAudit,
        worker: str,
        clock: Callable[[], int],
        slice_rows: int,
    ) -> None:
        """Prepare the run of a job from the request topic. ``directory`` has the files of all jobs."""
        self._job = job
        self._settings = settings
        self._store = store
        self._directory = directory
        self._audit = audit
        self._worker = worker
        self._clock = clock
        self._slice_rows = slice_rows
        self._stopped = threading.Event()
        self._rows_before = 0
        self._progress_at = 0

    def stop(self) -> None:
        """Interrupt the job, so that the next exporter goes on with it. Does not block."""
        self._stopped.set()

    def run(self) -> ExportJob:
        """Run the job to its end, and return it. Blocks as long as ClickHouse is down.

        Raises:
            JobInterruptedError: The job did not end in this attempt.
        """
        self._job = self._retry(lambda: self._store.job(self._job.id)) or self._job
        if self._job.is_under_way or not self._job.ended_at:
            self._run_to_end()
        # Also if the job had ended before: its exporter may have died before the clean-up.
        self._clean_up()
        return self._job

    def _run_to_end(self) -> None:
        try:
            if self._job.state != "cancelled":
                self._begin_attempt()
                self._check_quota()
                self._finish(self._export())
                return
        except _CancelledError:
            pass
        except (ExportError, SettingsError) as error:
            _logger.warning("export %s failed: %s", self._job.id, error)
            self._change(state="failed", error=str(error), ended_at=self._clock())
            return
        self._change(state="cancelled", ended_at=self._clock())

    def _begin_attempt(self) -> None:
        """Store that this exporter runs the job, and fix its watermark unless it has one."""
        version = max(self._retry(self._store.now), self._job.version + 1)
        directory = self._job.directory
        if not directory or not self._is_resumable():
            directory = f"{self._job.id}/{version:x}"
        now = self._clock()
        watermark = self._job.watermark or self._retry(self._store.watermark)
        self._job = replace(self._job, version=version, started_at=now, rows=0, total=None, rate=0.0)
        self._change(state="running", worker=self._worker, directory=directory, watermark=watermark)

    def _check_quota(self) -> None:
        reason = self._retry(lambda: over_quota(self._store, self._job, self._settings.export_quota))
        if reason is not None:
            self._warn_on_error(lambda: self._audit.denied(self._job, self._job.requester, reason, None))
            raise ExportDeniedError(reason)

    def _export(self) -> ExportResult:
        tries = 0
        while True:
            job = self._job
            resume = self._is_resumable()
            try:
                return export_events(
                    self._settings,
                    job.request,
                    self._directory.display_name(self._file_name),
                    output_format=job.output_format,
                    watermark=job.watermark,
                    requester=job.requester.id,
                    resume=resume,
                    slice_rows=self._slice_rows,
                    progress=self._progress,
                )
            except ExportSourceError:
                if not self._waited_for_clickhouse():
                    tries += 1
                    if tries == _TRIES:
                        raise
                    self._pause(2.0**tries)
            except ExportError as error:
                if not resume:
                    raise
                _logger.warning("export %s cannot be resumed and begins anew: %s", job.id, error)
                self._directory.forget(self._file_name)
                self._change(directory=f"{job.id}/{job.version + 1:x}")

    def _progress(self, rows: int, total: int) -> None:
        if self._stopped.is_set():
            raise JobInterruptedError(f"export {self._job.id} is interrupted after {rows} rows")
        now = self._clock()
        if self._job.total is None:
            self._rows_before, self._progress_at = rows, 0
        if now - self._progress_at < _PROGRESS_INTERVAL:
            return
        self._progress_at = now
        try:
            self._write(rows=rows, total=total, rate=self._rate(rows, now))
        except ExportSourceError as error:
            # If ClickHouse is down, the stream of rows fails, too.
            _logger.info("the progress of export %s was not stored: %s", self._job.id, error)

    def _rate(self, rows: int, now: int) -> float:
        """Rows per second of this attempt, without the rows of earlier ones."""
        seconds = (now - (self._job.started_at or now)) / NANOSECONDS
        return max(0, rows - self._rows_before) / seconds if seconds > 0 else 0.0

    def _finish(self, result: ExportResult) -> None:
        now = self._clock()
        manifest = manifest_name(self._job.name)
        proofs = [manifest, *([signature_name(self._job.name)] if result.key_id else [])]
        try:
            # The job may have been cancelled during the upload.
            self._retry(self._check_lease)
            files = [JobFile(name=f.name, rows=f.rows, bytes=f.bytes, sha256=f.sha256) for f in result.files]
            self._change(
                state="finished",
                rows=result.rows,
                total=result.rows,
                rate=self._rate(result.rows, now),
                files=(*files, *map(self._proof, proofs)),
                manifest=manifest,
                key_id=result.key_id or "",
                ended_at=now,
                expires_at=now + int(self._settings.export_expire_days * _DAY),
            )
        except LeaseLostError:
            # The files were published before another exporter could resume them, so no other attempt uses them.
            self._warn_on_error(lambda: self._directory.clear(self._job.directory))
            raise

    def _proof(self, name: str) -> JobFile:
        content = b"".join(self._directory.read(f"{self._job.directory}/{name}"))
        return JobFile(name=name, rows=0, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def _clean_up(self) -> None:
        job = self._job
        is_finished = job.state == "finished"
        if job.directory and not is_finished:
            self._directory.forget(self._file_name)
        self._warn_on_error(lambda: self._directory.clear(str(job.id), keep=job.directory if is_finished else ""))
        if job.state in {"finished", "failed"}:
            self._warn_on_error(lambda: self._audit.ended(job))

    def _warn_on_error(self, call: Callable[[], object]) -> None:
        """Call; the job has ended, so an error is only logged."""
        try:
            call()
        except AuditstreamError as error:
            _logger.warning("export %s: %s", self._job.id, error)

    @property
    def _file_name(self) -> str:
        return f"{self._job.directory}/{self._job.name}"

    def _is_resumable(self) -> bool:
        """Whether this machine has an unfinished export of the job that no process is writing."""
        return is_resumable(self._directory.local_path(self._file_name))

    def _change(self, **changes: Any) -> None:
        self._retry(lambda: self._write(**changes))

    def _write(self, **changes: Any) -> None:
        """Change the state, and check that the job still belongs to this exporter.

        Raises:
            LeaseLostError: Another exporter has the job.
            _CancelledError: The job was cancelled.
        """
        job = replace(self._job, version=self._job.version + 1, changed_at=self._clock(), **changes)
        self._store.write(job)
        self._job = job
        self._check_lease()

    def _check_lease(self) -> None:
        """Raise as `_write` does, without a change of the state."""
        job, stored = self._job, self._store.job(self._job.id)
        if stored is None or stored.version != job.version or stored.worker != job.worker:
            raise LeaseLostError(f"export {job.id} was taken over by {stored.worker if stored else 'nobody'}")
        if stored.state == "cancelled" != job.state:
            raise _CancelledError

    def _retry(self, call: Callable[[], _T]) -> _T:
        """Call until ClickHouse answers.

        Raises:
            JobInterruptedError: The job was interrupted meanwhile.
        """
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except ExportSourceError as error:
                if pause == _FIRST_PAUSE_SECONDS:
                    _logger.warning("export %s waits: %s", self._job.id, error)
                self._pause(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)

    def _waited_for_clickhouse(self) -> bool:
        """Block until ClickHouse answers; return False if it answered at once."""
        try:
            self._store.now()
        except ExportSourceError:
            self._retry(self._store.now)
            return True
        return False

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise JobInterruptedError(f"export {self._job.id} is interrupted while ClickHouse is down")
