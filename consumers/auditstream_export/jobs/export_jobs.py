"""Export jobs as a requester uses them: request, list, cancel, retry, download.

Every action emits an audit event first. If the event cannot be emitted, the action is refused.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from uuid_utils.compat import uuid7

from auditstream_export.files import open_directory
from auditstream_export.formats import OutputFormat
from auditstream_export.jobs.export_job import ExportJob, Suffix, job_from_request, request_json
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_export.jobs.job_store import JobStore
from auditstream_export.query.request import ExportRequest
from auditstream_export.settings import JobSettings
from auditstream_schemas.errors import ExportDeniedError, ExportError
from auditstream_schemas.event import Entity, Request
from auditstream_storage import Emit

_SEND_SECONDS = 10.0
_PROPAGATION_MS = 3_000
"""Time until an unknown topic is an error: a new topic is not known to all brokers at once."""
_MEDIA_TYPES = {
    ".gz": "application/gzip",
    ".zst": "application/zstd",
    ".csv": "text/csv; charset=utf-8",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
}
_BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A file of a finished export, opened for download.

    Attributes:
        name: Name of the file.
        size: Length in bytes.
        media_type: MIME type.
        pieces: The content, in pieces of about a megabyte.
    """

    name: str
    size: int
    media_type: str
    pieces: Iterator[bytes]


class ExportJobs:
    """Export jobs for requesters. Safe to share between threads.

    The caller must authorise: `ExportFilter.scopes` limits an export to the scopes that the requester may see. Every
    method may block on the network, and raises ExportSourceError if ClickHouse failed. An action raises an
    AuditstreamError if its audit event cannot be emitted.
    """

    def __init__(self, settings: JobSettings, emit: Emit, *, clock: Callable[[], int] = time.time_ns) -> None:
        """Prepare the connections; does not connect. ``emit`` emits an audit event, and must not block."""
        self._settings = settings
        self._clock = clock
        self._store = JobStore(settings)
        self._audit = JobAudit(emit, scope_type=settings.scope_type, clock=clock)
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    def close(self) -> None:
        """Close the connection to ClickHouse."""
        self._store.close()

    def request(
        self,
        export_request: ExportRequest,
        *,
        requester: Entity,
        output_format: OutputFormat | None = None,
        suffix: Suffix = "",
        label: str = "",
        request: Request | None = None,
    ) -> ExportJob:
        """Request an export, which an exporter runs. Blocks until the request is on its topic, at most ten seconds.

        Args:
            export_request: Range and filter.
            requester: The person or service that requests it.
            output_format: Format of the files; csv, raw, in one file by default.
            suffix: Compression of the files.
            label: A text that is stored with the job for the requester.
            request: The request that caused the call, for the audit event.

        Raises:
            ExportDeniedError: The quota is used up.
            ExportError: The request is invalid or cannot be sent.
        """
        now, queued_at = self._clock(), self._store.now()
        job = ExportJob(
            id=uuid7(),
            request=export_request,
            output_format=output_format or OutputFormat(),
            suffix=suffix,
            requester=requester,
            label=label,
            requested_at=now,
            queued_at=queued_at,
            version=queued_at,
            changed_at=now,
        )
        job.output_format.check_name(job.name)
        self._submit(job, requester, request)
        return job

    def jobs(self, scopes: Sequence[str] | None, *, limit: int = 100) -> list[ExportJob]:
        """The latest jobs with events of one of these scopes, newest first; None for all."""
        return self._store.jobs(scopes, limit=limit)

    def job(self, id: UUID) -> ExportJob | None:
        """One job, or None."""
        return self._store.job(id)

    def cancel(self, id: UUID, *, by: Entity, request: Request | None = None) -> ExportJob:
        """Cancel a job; one that has ended stays as it is. A running job stops within some seconds.

        Raises:
            ExportError: There is no such job.
        """
        job = self._existing(id)
        if not job.is_under_way:
            return job
        self._audit.cancelled(job, by, request)
        self._store.cancel(id)
        return self._existing(id)

    def retry(self, id: UUID, *, by: Entity, request: Request | None = None) -> ExportJob:
        """Run a failed or cancelled job again, up to the same watermark.

        A queued job is only sent again, which is harmless: its requester's process may have died before sending it.

        Raises:
            ExportDeniedError: The quota of the day of the first request is used up.
            ExportError: There is no such job, or it is running or has finished.
        """
        job = self._existing(id)
        if job.state == "queued":
            self._send(job)
            return job
        if job.state not in {"failed", "cancelled"}:
            raise ExportError(f"export {id} is {job.state}: only a failed or cancelled export is run again")
        now = self._store.now()
        job = replace(
            job_from_request(request_json(job)),
            queued_at=now,
            version=max(now, job.version + 1),
            changed_at=self._clock(),
            watermark=job.watermark,
        )
        self._submit(job, by, request)
        return job

    @contextmanager
    def open(
        self, id: UUID, *, by: Entity, name: str | None = None, request: Request | None = None
    ) -> Iterator[OpenFile]:
        """Open a file of a finished job.

        Args:
            id: Id of the job.
            by: The person or service that downloads it.
            name: Name of the file, which may be the manifest or its signature; the first file with events by default.
            request: The request that caused the call, for the audit event.

        Raises:
            ExportError: The file does not exist, or has expired.
            SettingsError: ``export_target`` is not set.
        """
        job = self._existing(id)
        if job.state != "finished" or (job.expires_at is not None and job.expires_at <= self._clock()):
            state = "expired" if job.state == "finished" else job.state
            raise ExportError(f"export {id} is {state}: it has no files")
        file = next((file for file in (job.files if name else job.data) if name in {None, file.name}), None)
        if file is None:
            names = ", ".join(file.name for file in job.files)
            raise ExportError(f"export {id} has no file {name!r}: it has {names}")
        media_type = next((kind for suffix, kind in _MEDIA_TYPES.items() if file.name.endswith(suffix)), _BINARY)
        directory = open_directory(self._settings.checked().export_target, self._settings)
        with closing(directory.read(f"{job.directory}/{file.name}")) as pieces:
            self._audit.downloaded(job, by, file, request)
            yield OpenFile(name=file.name, size=file.bytes, media_type=media_type, pieces=pieces)

    def _existing(self, id: UUID) -> ExportJob:
        job = self._store.job(id)
        if job is None:
            raise ExportError(f"there is no export {id}")
        return job

    def _submit(self, job: ExportJob, by: Entity, request: Request | None) -> None:
        """Check the quota, emit the audit event, store the job and send it. Store a failure to send it."""
        reason = self._store.over_quota(job, self._settings.export_quota)
        if reason is not None:
            self._audit.denied(job, by, reason, request)
            raise ExportDeniedError(reason)
        self._audit.requested(job, by, request)
        self._store.write(job)
        try:
            self._send(job)
        except ExportError as error:
            now = self._clock()
            version = job.version + 1
            failed = replace(job, version=version, state="failed", error=str(error), ended_at=now, changed_at=now)
            self._store.write(failed)
            raise

    def _send(self, job: ExportJob) -> None:
        outcomes: list[str] = []
        topic = self._settings.requests
        producer = self._connected()

        def delivered(error: KafkaError | None, _message: Message) -> None:
            # As text: comparing a KafkaError with None leaves an exception pending in the client.
            outcomes.append("" if error is None else error.str())

        try:
            producer.produce(topic, key=str(job.id), value=request_json(job), on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            raise ExportError(f"the request cannot be sent to topic {topic}: {error}") from error
        deadline = time.monotonic() + _SEND_SECONDS + 1
        while not outcomes and time.monotonic() < deadline:
            producer.flush(0.5)
        if outcomes != [""]:
            reason = outcomes[0] if outcomes else "no answer"
            raise ExportError(
                f"{self._settings.kafka_bootstrap_servers} did not accept the request on topic {topic}: {reason}; "
                "create the topic with `auditstream topics`"
            )

    def _connected(self) -> Producer:
        with self._lock:
            if self._producer is None:
                options = {
                    "enable.idempotence": True,
                    "message.timeout.ms": int(_SEND_SECONDS * 1000),
                    # A misspelt topic must be an error, not a new topic that no exporter reads.
                    "allow.auto.create.topics": "false",
                    "topic.metadata.propagation.max.ms": _PROPAGATION_MS,
                    # A duplicate request is harmless, a lost one is not.
                    "acks": "all",
                }
                self._producer = Producer(self._settings.librdkafka_client("exports") | options)
            return self._producer
