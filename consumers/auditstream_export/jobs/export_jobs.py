"""Exports on demand, as whoever asks for them sees it: request, look, cancel, retry, download.

Nothing happens that is not said: an event about it is emitted first, and if that cannot be, it does not happen.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from uuid_utils.compat import uuid7

from auditstream_export.formats.output_format import OutputFormat
from auditstream_export.jobs.export_job import ExportJob, JobFile, Suffix, request_json
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_export.jobs.job_files import job_files
from auditstream_export.jobs.job_store import JobStore
from auditstream_export.jobs.quota import over_quota
from auditstream_export.query.request import ExportRequest
from auditstream_export.settings import JobSettings
from auditstream_schemas.errors import ExportDeniedError, ExportError
from auditstream_schemas.event import Entity, Request
from auditstream_storage import Emit

_SEND_SECONDS = 10.0
_PROPAGATION_MS = 3_000
"""Until a topic that the broker does not know is taken for a misspelt one."""
_MEDIA_TYPES = {
    ".gz": "application/gzip",
    ".zst": "application/zstd",
    ".csv": "text/csv; charset=utf-8",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A file of a finished export, to be sent piece by piece.

    Attributes:
        name: Its name.
        size: Bytes.
        media_type: Its MIME type.
        pieces: Its content, in pieces of about a megabyte.
    """

    name: str
    size: int
    media_type: str
    pieces: Iterator[bytes]


class ExportJobs:
    """Exports on demand. Safe to share between threads; every method may block on the network.

    Who may ask for what is for the caller to say: `ExportFilter.scopes` is the limit that always applies.
    """

    def __init__(self, settings: JobSettings, emit: Emit, *, clock: Callable[[], int] = time.time_ns) -> None:
        """Nothing is asked yet.

        Args:
            settings: Where requests go, where state and files are.
            emit: Takes the events about exports; must not wait for the network.
            clock: Nanoseconds since the epoch.

        """
        self._settings = settings
        self._clock = clock
        self._store = JobStore(settings)
        self._audit = JobAudit(emit, scope_type=settings.scope_type, clock=clock)
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    def close(self) -> None:
        """Give connections back."""
        self._store.close()

    def request(
        self,
        wanted: ExportRequest,
        *,
        requester: Entity,
        shape: OutputFormat | None = None,
        suffix: Suffix = "",
        label: str = "",
        request: Request | None = None,
    ) -> ExportJob:
        """Ask for an export; it runs elsewhere. Blocks until the request is on its topic, ten seconds at most.

        Args:
            wanted: Which events.
            requester: Who asks.
            shape: What the files look like; csv, raw, in one file by default.
            suffix: How they are compressed.
            label: Kept with the job, for the requester.
            request: What caused it, for the event about it.

        Raises:
            ExportDeniedError: The quota is used up.
            ExportError: It cannot be asked for; ExportSourceError if it may be later.
            AuditstreamError: The event about it cannot be emitted.
        """
        shape = shape or OutputFormat()
        if shape.format == "parquet" and suffix:
            raise ExportError("parquet is compressed in itself, leave out the suffix")
        now, queued_at = self._clock(), self._store.now()
        job = ExportJob(
            id=uuid7(),
            wanted=wanted,
            shape=shape,
            suffix=suffix,
            requester=requester,
            label=label,
            requested_at=now,
            queued_at=queued_at,
            version=queued_at,
            changed_at=now,
        )
        reason = over_quota(self._store, job, self._settings.export_quota)
        if reason is not None:
            self._audit.denied(job, requester, reason, request)
            raise ExportDeniedError(reason)
        self._audit.requested(job, requester, request)
        self._store.write(job)
        self._send(job)
        return job

    def jobs(self, scopes: Sequence[str] | None, *, limit: int = 100) -> list[ExportJob]:
        """The latest jobs that hold events of one of these scopes, newest first; None for all.

        Raises:
            ExportSourceError: ClickHouse failed.
        """
        return self._store.jobs(scopes, limit=limit)

    def job(self, id: UUID) -> ExportJob | None:
        """One job, or None.

        Raises:
            ExportSourceError: ClickHouse failed.
        """
        return self._store.job(id)

    def cancel(self, id: UUID, *, by: Entity, request: Request | None = None) -> ExportJob:
        """Stop a job that is under way; one that has ended stays as it is. A worker stops within some seconds.

        Raises:
            ExportError: There is no such job.
            AuditstreamError: The event about it cannot be emitted.
        """
        job = self._known(id)
        if not job.is_under_way:
            return job
        self._audit.cancelled(job, by, request)
        self._store.cancel(id)
        return self._known(id)

    def retry(self, id: UUID, *, by: Entity, request: Request | None = None) -> ExportJob:
        """Run a job that failed or was cancelled once more, with the watermark that it had.

        A queued one is put on its topic again, which does no harm: for where whoever asked died in between.

        Raises:
            ExportDeniedError: The quota of the day that it was first asked for is used up.
            ExportError: There is no such job, or it is none to be retried.
            AuditstreamError: The event about it cannot be emitted.
        """
        job = self._known(id)
        if job.state == "queued":
            self._put(job)
            return job
        if job.state not in {"failed", "cancelled"}:
            raise ExportError(f"export {id} is {job.state}: only one that failed or was cancelled is run again")
        reason = over_quota(self._store, job, self._settings.export_quota)
        if reason is not None:
            self._audit.denied(job, by, reason, request)
            raise ExportDeniedError(reason)
        now = self._store.now()
        job = ExportJob(
            id=job.id,
            wanted=job.wanted,
            shape=job.shape,
            suffix=job.suffix,
            requester=job.requester,
            label=job.label,
            requested_at=job.requested_at,
            queued_at=now,
            version=max(now, job.version + 1),
            changed_at=self._clock(),
            watermark=job.watermark,
        )
        self._audit.requested(job, by, request)
        self._store.write(job)
        self._send(job)
        return job

    @contextmanager
    def open(
        self,
        id: UUID,
        *,
        by: Entity,
        name: str | None = None,
        request: Request | None = None,
    ) -> Iterator[OpenFile]:
        """A file of a finished job.

        Args:
            id: The job.
            by: Who downloads it.
            name: Which one, for there are the manifest and its signature, too; the first with events by default.
            request: What caused it, for the event about it.

        Raises:
            ExportError: It is not there, or not any more.
            SettingsError: ``export_target`` is not set.
            AuditstreamError: The event about it cannot be emitted.
        """
        job = self._known(id)
        if job.state != "finished" or (job.expires_at is not None and job.expires_at <= self._clock()):
            state = "expired" if job.state == "finished" else job.state
            raise ExportError(f"export {id} is {state}: there is no file of it")
        file = _file(job, name)
        pieces = job_files(self._settings.checked()).pieces(job.directory, file.name)
        with closing(pieces):
            self._audit.downloaded(job, by, file, request)
            yield OpenFile(name=file.name, size=file.bytes, media_type=_media_type(file.name), pieces=pieces)

    def _known(self, id: UUID) -> ExportJob:
        job = self._store.job(id)
        if job is None:
            raise ExportError(f"there is no export {id}")
        return job

    def _send(self, job: ExportJob) -> None:
        """Put a new request on its topic; if that fails, the job has failed."""
        try:
            self._put(job)
        except ExportError as error:
            now = self._clock()
            self._store.write(
                replace(job, version=job.version + 1, state="failed", error=str(error), ended_at=now, changed_at=now)
            )
            raise

    def _put(self, job: ExportJob) -> None:
        told: list[str] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            told.append("" if error is None else error.str())

        topic = self._settings.requests
        producer = self._connected()
        try:
            producer.produce(topic, key=str(job.id), value=request_json(job), on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            raise ExportError(f"the request cannot be put on topic {topic}: {error}") from error
        deadline = time.monotonic() + _SEND_SECONDS + 1
        while not told and time.monotonic() < deadline:
            producer.flush(0.5)
        if told != [""]:
            raise ExportError(
                f"{self._settings.kafka_bootstrap_servers} did not take the request on topic {topic}: "
                f"{told[0] if told else 'no answer'}; did `auditstream topics` make it?"
            )

    def _connected(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(
                    {
                        **self._settings.librdkafka_client("exports"),
                        "enable.idempotence": True,
                        "message.timeout.ms": int(_SEND_SECONDS * 1000),
                        # A misspelt topic is an error, not a new topic that no exporter reads.
                        "allow.auto.create.topics": "false",
                        "topic.metadata.propagation.max.ms": _PROPAGATION_MS,
                        # A request that came out twice does no harm, one that is lost does.
                        "acks": "all",
                    }
                )
            return self._producer


def _file(job: ExportJob, name: str | None) -> JobFile:
    for each in job.files if name else job.data:
        if name is None or each.name == name:
            return each
    raise ExportError(f"export {job.id} has no file {name!r}: it has {', '.join(each.name for each in job.files)}")


def _media_type(name: str) -> str:
    return next((kind for suffix, kind in _MEDIA_TYPES.items() if name.endswith(suffix)), "application/octet-stream")
