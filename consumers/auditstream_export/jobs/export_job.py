"""An export job: its request and its state."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args
from uuid import UUID

from auditstream_export.formats import OutputFormat
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.watermark import Watermark
from auditstream_schemas.errors import AuditstreamError, ExportError
from auditstream_schemas.event import Entity
from auditstream_schemas.timestamp import format_timestamp, parse_timestamp

JobState = Literal["queued", "running", "finished", "failed", "cancelled", "expired"]
Suffix = Literal["", ".gz", ".zst"]
SUFFIXES: tuple[Suffix, ...] = get_args(Suffix)
UNDER_WAY: frozenset[JobState] = frozenset({"queued", "running"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A file of a finished job.

    Attributes:
        name: Name without directories.
        rows: Number of events; 0 for a manifest or a signature.
        bytes: Length of the file.
        sha256: SHA-256 of the file, hexadecimal.
    """

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """An export job. Times are nanoseconds since the epoch.

    Attributes:
        id: Id of the job.
        request: Range and filter.
        output_format: Format of the files.
        suffix: Compression of the files, as the end of their names.
        requester: The person or service that requested the export.
        label: A text for the requester, such as the query of the admin page; stored and not interpreted.
        requested_at: Time of the request.
        queued_at: Time of the request, or of the last retry, by ClickHouse's clock.
        state: State of the job.
        version: Number of this state; a higher version replaces a lower one. 0 if no state is stored yet.
        started_at: Start of the last attempt.
        ended_at: End of the job.
        changed_at: Time of this state.
        expires_at: Time at which the files are deleted.
        worker: Exporter of the last attempt.
        directory: Directory of the files, relative to the target of all jobs.
        watermark: The offsets up to which events are included; fixed by the first attempt.
        rows: Rows written so far.
        total: Number of events; None until they are counted.
        rate: Rows per second of the last attempt.
        files: The files, in order; the manifest and its signature are last.
        manifest: Name of the manifest; empty if there are no files.
        key_id: Id of the key that signed the manifest; empty if it is not signed.
        error: Reason of a failure, for people; empty if the job did not fail.
    """

    id: UUID
    request: ExportRequest
    output_format: OutputFormat
    suffix: Suffix = ""
    requester: Entity
    label: str = ""
    requested_at: int
    queued_at: int
    state: JobState = "queued"
    version: int = 0
    started_at: int | None = None
    ended_at: int | None = None
    changed_at: int
    expires_at: int | None = None
    worker: str = ""
    directory: str = ""
    watermark: Watermark | None = None
    rows: int = 0
    total: int | None = None
    rate: float = 0.0
    files: tuple[JobFile, ...] = ()
    manifest: str = ""
    key_id: str = ""
    error: str = ""

    @property
    def is_under_way(self) -> bool:
        """Whether the job is queued or running."""
        return self.state in UNDER_WAY

    @property
    def scopes(self) -> tuple[str, ...]:
        """Ids of the scopes whose events are exported; empty for all."""
        scope, scopes = self.request.filter.scope, self.request.filter.scopes
        if scope is not None and (scopes is None or scope in scopes):
            return (scope,)
        return scopes or ()

    @property
    def name(self) -> str:
        """Name of the file; several files are numbered after it."""
        start, end = (format_timestamp(time)[:10].replace("-", "") for time in (self.request.start, self.request.end))
        return f"audit-log-{start}-{end}-{str(self.id)[-8:]}.{self.output_format.format}{self.suffix}"

    @property
    def data(self) -> tuple[JobFile, ...]:
        """The files with events: without the manifest and its signature."""
        return tuple(file for file in self.files if file.name not in {self.manifest, f"{self.manifest}.sig"})

    @property
    def proofs(self) -> tuple[JobFile, ...]:
        """The manifest and its signature."""
        return tuple(file for file in self.files if file not in self.data)

    @property
    def bytes(self) -> int:
        """Length of the files with events."""
        return sum(file.bytes for file in self.data)

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the file with events, hexadecimal; None unless there is exactly one."""
        return self.data[0].sha256 if len(self.data) == 1 else None

    @property
    def remaining(self) -> float | None:
        """Estimated seconds until all rows are written; None if there is no estimate."""
        if self.state != "running" or not self.rate or self.total is None:
            return None
        return max(0, self.total - self.rows) / self.rate

    def to_dict(self) -> dict[str, object]:
        """The job as JSON values, for the command line and programs."""
        names = ("requested_at", "started_at", "ended_at", "changed_at", "expires_at")
        times = {name: getattr(self, name) for name in names}
        return {
            "id": str(self.id),
            "state": self.state,
            **_request_fields(self),
            **{name: None if value is None else format_timestamp(value) for name, value in times.items()},
            "worker": self.worker,
            "rows": self.rows,
            "total": self.total,
            "rate": round(self.rate, 1),
            "remaining_seconds": None if self.remaining is None else round(self.remaining, 1),
            "files": [asdict(file) for file in self.files],
            "manifest": self.manifest or None,
            "key_id": self.key_id or None,
            "error": self.error or None,
        }


def request_json(job: ExportJob) -> str:
    """The request of a job as JSON: the record on the request topic, and a column of the stored state."""
    record = {"id": str(job.id), "requested_at": format_timestamp(job.requested_at), **_request_fields(job)}
    return json.dumps(record, ensure_ascii=False)


def job_from_request(text: str | bytes) -> ExportJob:
    """Read the JSON of `request_json` as a job without a stored state. Raises ExportError if it is malformed."""
    try:
        record: dict[str, Any] = json.loads(text)
        requested_at = parse_timestamp(record["requested_at"])
        return ExportJob(
            id=UUID(record["id"]),
            request=ExportRequest.from_dict(record),
            output_format=OutputFormat.from_dict(record),
            suffix=SUFFIXES[SUFFIXES.index(record["suffix"])],
            requester=Entity(**record["requester"]),
            label=record["label"],
            requested_at=requested_at,
            queued_at=requested_at,
            changed_at=requested_at,
        )
    except (AuditstreamError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise ExportError(f"this is not a request for an export: {error}") from error


def _request_fields(job: ExportJob) -> dict[str, object]:
    requester = {field.name: getattr(job.requester, field.name) for field in fields(Entity)}
    return {
        **job.request.to_dict(),
        **asdict(job.output_format),
        "suffix": job.suffix,
        "requester": {**requester, "attributes": dict(job.requester.attributes)},
        "label": job.label,
    }
