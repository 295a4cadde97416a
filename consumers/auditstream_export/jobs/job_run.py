"""One worker's taking of one job, from the first look at its state to the last word about it.

The consumer group's lease says who may take a job, and may be wrong: a worker that slept does not know that it lost
it. So each change of the state is read back. Whoever took the job later writes later versions, and a worker that
finds one leaves the job as it is, with what it wrote under a name that nobody else writes.
"""

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from auditstream_export.export import ExportResult, export_events
from auditstream_export.jobs.export_job import ExportJob, JobFile
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_export.jobs.job_files import JobFiles, can_go_on
from auditstream_export.jobs.job_store import JobStore
from auditstream_export.jobs.quota import over_quota
from auditstream_export.settings import JobSettings
from auditstream_export.verify.manifest import manifest_name, signature_name
from auditstream_schemas.errors import (
    AuditstreamError,
    ExportDeniedError,
    ExportError,
    ExportSourceError,
    SettingsError,
)
from auditstream_schemas.timestamp import NANOSECONDS

_TRIES = 3
"""Of an export that ClickHouse fails while it is there."""
_LONGEST_PAUSE_SECONDS = 15.0
_NOTE_EVERY = NANOSECONDS
_DAY = 24 * 3600 * NANOSECONDS

_T = TypeVar("_T")
_logger = logging.getLogger("auditstream.export")


class LeftError(AuditstreamError):
    """The job has not ended here."""


class LeaseLostError(LeftError):
    """The job is another worker's now."""


class _CancelledError(AuditstreamError):
    """Somebody stopped the job."""


class JobRun:
    """Runs a job, in whatever thread calls `run`; `leave` may be called from another."""

    def __init__(
        self,
        record: ExportJob,
        *,
        settings: JobSettings,
        store: JobStore,
        files: JobFiles,
        audit: JobAudit,
        worker: str,
        clock: Callable[[], int],
        slice_rows: int,
    ) -> None:
        """Nothing is done yet.

        Args:
            record: The job as the topic has it.
            settings: Where the events are, and what signs manifests.
            store: The state of jobs.
            files: Their files.
            audit: Says how it ended.
            worker: This worker's name.
            clock: Nanoseconds since the epoch.
            slice_rows: Events after which the export can be resumed.
        """
        self._job = record
        self._settings = settings
        self._store = store
        self._files = files
        self._audit = audit
        self._worker = worker
        self._clock = clock
        self._slice_rows = slice_rows
        self._left = threading.Event()
        self._rows_before = 0
        self._noted_at = 0

    def leave(self) -> None:
        """Tell it to leave the job where it is, for the next worker to go on with. Does not block."""
        self._left.set()

    def run(self) -> ExportJob:
        """Run the job to its end, however long ClickHouse is away, and return it.

        Raises:
            LeftError: It has not ended here.
        """
        job = self._patiently(lambda: self._store.job(self._job.id))
        if job is not None:
            self._job = job
        if job is None or job.is_under_way or not job.ended_at:
            self._settle()
        # Also for a job that had ended: the worker that ended it may have died before this.
        self._clear_up()
        return self._job

    def _settle(self) -> None:
        try:
            result = None if self._job.state == "cancelled" else self._export_if_allowed()
        except _CancelledError:
            result = None
        except (ExportError, SettingsError) as error:
            _logger.warning("export %s failed: %s", self._job.id, error)
            self._end(state="failed", error=str(error))
            return
        if result is None:
            self._end(state="cancelled")
        else:
            self._finish(result)

    def _export_if_allowed(self) -> ExportResult:
        self._take()
        reason = self._patiently(lambda: over_quota(self._store, self._job, self._settings.export_quota))
        if reason is not None:
            self._audit_safely(lambda: self._audit.denied(self._job, self._job.requester, reason, None))
            raise ExportDeniedError(reason)
        return self._export()

    def _take(self) -> None:
        """Write down that this worker has the job, and fix its watermark unless it has one."""
        taken = max(self._patiently(self._store.now), self._job.version + 1)
        place = self._job.directory
        if not place or not can_go_on(self._files.target(place, self._job.name), self._settings):
            place = f"{self._job.id}/{taken:x}"
        now = self._clock()
        watermark = self._job.watermark or self._patiently(self._store.watermark)
        self._job = replace(self._job, version=taken, started_at=now, rows=0, total=None, rate=0.0)
        self._patiently(lambda: self._write(state="running", worker=self._worker, directory=place, watermark=watermark))

    def _export(self) -> ExportResult:
        tries = 0
        while True:
            job = self._job
            target = self._files.target(job.directory, job.name)
            resume = can_go_on(target, self._settings)
            try:
                return export_events(
                    self._settings,
                    job.wanted,
                    target,
                    shape=job.shape,
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
                _logger.warning("export %s begins anew, for it cannot be resumed: %s", job.id, error)
                self._files.forget(target)
                again = f"{job.id}/{job.version + 1:x}"
                self._patiently(lambda directory=again: self._write(directory=directory))  # type: ignore[misc]

    def _progress(self, rows: int, total: int) -> None:
        if self._left.is_set():
            raise LeftError(f"export {self._job.id} is left after {rows} rows")
        now = self._clock()
        if self._job.total is None:
            self._rows_before, self._noted_at = rows, 0
        if now - self._noted_at < _NOTE_EVERY:
            return
        self._noted_at = now
        try:
            self._write(rows=rows, total=total, rate=self._rate(rows, now))
        except ExportSourceError as error:
            # The stream itself will tell if ClickHouse is away.
            _logger.info("progress of export %s was not noted: %s", self._job.id, error)

    def _rate(self, rows: int, now: int) -> float:
        """Rows a second, without those that were there when this worker took the job."""
        seconds = (now - (self._job.started_at or now)) / NANOSECONDS
        return max(0, rows - self._rows_before) / seconds if seconds > 0 else 0.0

    def _finish(self, result: ExportResult) -> None:
        now = self._clock()
        try:
            manifest = manifest_name(self._job.name)
            beside = [manifest, *([signature_name(self._job.name)] if result.key_id else [])]
            # Uploading took its time, in which the job may have been stopped.
            self._patiently(self._look)
            data = [JobFile(name=f.name, rows=f.rows, bytes=f.bytes, sha256=f.sha256) for f in result.files]
            self._patiently(
                lambda: self._write(
                    state="finished",
                    rows=result.rows,
                    total=result.rows,
                    rate=self._rate(result.rows, now),
                    files=(*data, *map(self._look_at, beside)),
                    manifest=manifest,
                    key_id=result.key_id or "",
                    ended_at=now,
                    expires_at=now + int(self._settings.export_expire_days * _DAY),
                )
            )
        except _CancelledError:
            self._end(state="cancelled")
        except LeaseLostError:
            # It was whole before another worker could go on with it, so nobody else has this place.
            self._files.clear_place(self._job.directory)
            raise

    def _look_at(self, name: str) -> JobFile:
        content = b"".join(self._files.pieces(self._job.directory, name))
        return JobFile(name=name, rows=0, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def _end(self, **changes: Any) -> None:
        now = self._clock()
        self._patiently(lambda: self._write(ended_at=now, **changes))

    def _clear_up(self) -> None:
        job = self._job
        try:
            if job.state != "finished" and job.directory:
                self._files.forget(self._files.target(job.directory, job.name))
            self._files.clear(job.id, but=job.directory if job.state == "finished" else "")
        except ExportError as error:
            _logger.warning("%s", error)
        if job.state in {"finished", "failed"}:
            self._audit_safely(lambda: self._audit.ended(job))

    def _audit_safely(self, say: Callable[[], object]) -> None:
        try:
            say()
        except AuditstreamError as error:
            _logger.warning("what became of export %s was not emitted: %s", self._job.id, error)

    def _write(self, **changes: Any) -> None:
        """Change the state, if the job is still this worker's.

        Raises:
            TakenOverError: It is not.
            _CancelledError: It is, but was stopped.
        """
        job = replace(self._job, version=self._job.version + 1, changed_at=self._clock(), **changes)
        self._store.write(job)
        self._job = job
        self._look()

    def _look(self) -> None:
        """Raise what `_write` does, without a change of the state."""
        job, found = self._job, self._store.job(self._job.id)
        if found is None or found.version != job.version or found.worker != job.worker:
            raise LeaseLostError(f"export {job.id} was taken over by {found.worker if found else 'nobody'}")
        if found.state == "cancelled" != job.state:
            raise _CancelledError("while it ran")

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Call until ClickHouse answers.

        Raises:
            LeftError: The job was to be left meanwhile.
        """
        pause = 0.2
        while True:
            try:
                return call()
            except ExportSourceError as error:
                if pause == 0.2:
                    _logger.warning("export %s waits: %s", self._job.id, error)
                self._pause(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)

    def _waited_for_clickhouse(self) -> bool:
        """Wait until ClickHouse answers; whether it did not at first."""
        try:
            self._store.now()
        except ExportSourceError:
            self._patiently(self._store.now)
            return True
        return False

    def _pause(self, seconds: float) -> None:
        if self._left.wait(seconds):
            raise LeftError(f"export {self._job.id} is left while ClickHouse is away")
