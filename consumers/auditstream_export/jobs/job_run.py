"""One exporter's attempt at one job, from reading its state to emitting the audit event about its end.

The consumer group assigns a job to one exporter. But an exporter that was suspended does not know that the group has
assigned its job to another. So each change of the state is read back. A later attempt writes higher versions; an
exporter that reads a higher version stops. Each attempt writes its files to a directory of its own.
"""

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from auditstream_export.export import ExportResult, export_events
from auditstream_export.files import Directory, is_resumable
from auditstream_export.jobs.export_job import ExportJob, JobFile
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_export.jobs.job_store import JobStore
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


class _LeaseLostError(JobInterruptedError):
    """Another exporter has taken over the job."""


class _CancelledError(AuditstreamError):
    """The job was cancelled."""


@dataclass(kw_only=True, eq=False)
class JobRun:
    """Runs a job of the request topic in the thread that calls `run`; `stop` may be called from another thread.

    ``job`` has its present state. ``directory`` contains the files of all jobs. ``worker`` is the exporter's name.
    """

    job: ExportJob
    settings: JobSettings
    store: JobStore
    directory: Directory
    audit: JobAudit
    worker: str
    clock: Callable[[], int]
    slice_rows: int
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _rows_before: int = field(default=0, init=False)
    _progress_at: int = field(default=0, init=False)

    def stop(self) -> None:
        """Interrupt the job, so that the next exporter goes on with it. Does not block."""
        self._stopped.set()

    def run(self) -> ExportJob:
        """Run the job to its end, and return it. Blocks as long as ClickHouse is down.

        Raises:
            JobInterruptedError: The job did not end in this attempt.
        """
        self.job = self._retry(lambda: self.store.job(self.job.id)) or self.job
        if self.job.is_under_way or not self.job.ended_at:
            self._run_to_end()
        # A job that had ended before is cleaned up, too: its exporter may have died before the clean-up.
        self._clean_up()
        return self.job

    def _run_to_end(self) -> None:
        try:
            if self.job.state != "cancelled":
                self._begin_attempt()
                self._check_quota()
                self._finish(self._export())
                return
        except _CancelledError:
            pass
        except (ExportError, SettingsError) as error:
            _logger.warning("export %s failed: %s", self.job.id, error)
            self._change(state="failed", error=str(error), ended_at=self.clock())
            return
        self._change(state="cancelled", ended_at=self.clock())

    def _begin_attempt(self) -> None:
        """Store that this exporter runs the job, and the watermark if this is the first attempt."""
        version = max(self._retry(self.store.now), self.job.version + 1)
        directory = self.job.directory
        if not directory or not self._is_resumable():
            directory = f"{self.job.id}/{version:x}"
        now = self.clock()
        watermark = self.job.watermark or self._retry(self.store.watermark)
        self.job = replace(self.job, version=version, started_at=now, rows=0, total=None, rate=0.0)
        self._change(state="running", worker=self.worker, directory=directory, watermark=watermark)

    def _check_quota(self) -> None:
        reason = self._retry(lambda: self.store.over_quota(self.job, self.settings.export_quota))
        if reason is not None:
            self._warn_on_error(lambda: self.audit.denied(self.job, self.job.requester, reason, None))
            raise ExportDeniedError(reason)

    def _export(self) -> ExportResult:
        tries = 0
        while True:
            job = self.job
            resume = self._is_resumable()
            try:
                return export_events(
                    self.settings,
                    job.request,
                    self.directory.display_name(self._file_name),
                    output_format=job.output_format,
                    watermark=job.watermark,
                    requester=job.requester.id,
                    resume=resume,
                    slice_rows=self.slice_rows,
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
                self.directory.forget(self._file_name)
                self._change(directory=f"{job.id}/{job.version + 1:x}")

    def _progress(self, rows: int, total: int) -> None:
        if self._stopped.is_set():
            raise JobInterruptedError(f"export {self.job.id} is interrupted after {rows} rows")
        now = self.clock()
        if self.job.total is None:
            self._rows_before, self._progress_at = rows, 0
        if now - self._progress_at < _PROGRESS_INTERVAL:
            return
        self._progress_at = now
        try:
            self._write(rows=rows, total=total, rate=self._rate(rows, now))
        except ExportSourceError as error:
            # If ClickHouse is down, the stream of rows fails, too.
            _logger.info("the progress of export %s was not stored: %s", self.job.id, error)

    def _rate(self, rows: int, now: int) -> float:
        """Rows per second of this attempt, without the rows of earlier ones."""
        seconds = (now - (self.job.started_at or now)) / NANOSECONDS
        return max(0, rows - self._rows_before) / seconds if seconds > 0 else 0.0

    def _finish(self, result: ExportResult) -> None:
        now = self.clock()
        manifest = manifest_name(self.job.name)
        proofs = [manifest, *([signature_name(self.job.name)] if result.key_id else [])]
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
                expires_at=now + int(self.settings.export_expire_days * _DAY),
            )
        except _LeaseLostError:
            # The files were published before another exporter could resume them, so no other attempt uses them.
            self._warn_on_error(lambda: self.directory.clear(self.job.directory))
            raise

    def _proof(self, name: str) -> JobFile:
        content = b"".join(self.directory.read(f"{self.job.directory}/{name}"))
        return JobFile(name=name, rows=0, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def _clean_up(self) -> None:
        job = self.job
        is_finished = job.state == "finished"
        if job.directory and not is_finished:
            self.directory.forget(self._file_name)
        self._warn_on_error(lambda: self.directory.clear(str(job.id), keep=job.directory if is_finished else ""))
        if job.state in {"finished", "failed"}:
            self._warn_on_error(lambda: self.audit.ended(job))

    def _warn_on_error(self, call: Callable[[], object]) -> None:
        """Call, and only log an error: the job has ended."""
        try:
            call()
        except AuditstreamError as error:
            _logger.warning("export %s: %s", self.job.id, error)

    @property
    def _file_name(self) -> str:
        return f"{self.job.directory}/{self.job.name}"

    def _is_resumable(self) -> bool:
        """Whether this machine has an unfinished export of the job that no process is writing."""
        return is_resumable(self.directory.local_path(self._file_name))

    def _change(self, **changes: Any) -> None:
        self._retry(lambda: self._write(**changes))

    def _write(self, **changes: Any) -> None:
        """Change the state. Raises _LeaseLostError if another exporter has the job, _CancelledError if cancelled."""
        job = replace(self.job, version=self.job.version + 1, changed_at=self.clock(), **changes)
        self.store.write(job)
        self.job = job
        self._check_lease()

    def _check_lease(self) -> None:
        """Raise as `_write` does, without a change of the state."""
        job, stored = self.job, self.store.job(self.job.id)
        if stored is None or stored.version != job.version or stored.worker != job.worker:
            raise _LeaseLostError(f"export {job.id} was taken over by {stored.worker if stored else 'nobody'}")
        if stored.state == "cancelled" != job.state:
            raise _CancelledError

    def _retry(self, call: Callable[[], _T]) -> _T:
        """Call until ClickHouse answers. Raises JobInterruptedError if the job is interrupted meanwhile."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except ExportSourceError as error:
                if pause == _FIRST_PAUSE_SECONDS:
                    _logger.warning("export %s waits: %s", self.job.id, error)
                self._pause(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)

    def _waited_for_clickhouse(self) -> bool:
        """Block until ClickHouse answers; return False if it answered at once."""
        try:
            self.store.now()
        except ExportSourceError:
            self._retry(self.store.now)
            return True
        return False

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise JobInterruptedError(f"export {self.job.id} is interrupted while ClickHouse is down")
