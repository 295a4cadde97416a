"""An export that was asked for: what is wanted, and what has become of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args
from uuid import UUID

from auditstream_export.formats.output_format import OutputFormat
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.watermark import Watermark
from auditstream_schemas.errors import AuditstreamError, ExportError
from auditstream_schemas.event import Entity
from auditstream_schemas.timestamp import NANOSECONDS, format_timestamp, parse_timestamp

JobState = Literal["queued", "running", "finished", "failed", "cancelled", "expired"]
Suffix = Literal["", ".gz", ".zst"]
_SUFFIXES: dict[str, Suffix] = {suffix: suffix for suffix in get_args(Suffix)}
UNDER_WAY: frozenset[JobState] = frozenset({"queued", "running"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A file of a finished job.

    Attributes:
        name: Its name, without folders.
        rows: Events in it; 0 for a manifest or a signature.
        bytes: Its length.
        sha256: Of the file, hexadecimal.
    """

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """An export that was asked for. Times are nanoseconds since the epoch.

    Attributes:
        id: Its id.
        wanted: Which events.
        shape: What the files look like.
        suffix: How they are compressed, as the end of their names.
        requester: Who asked.
        label: What the requester wants to find with it again, such as the query of a page; not looked at.
        requested_at: When.
        queued_at: The same by ClickHouse's clock, or when it was retried.
        state: What has become of it.
        version: Later ones replace earlier ones; 0 for one that has no state yet.
        started_at: When the worker took it that has it now.
        ended_at: When it ended.
        changed_at: When it last changed.
        expires_at: When the files go.
        worker: Who has it, or had it last.
        directory: Folder of the files, below the target of all.
        watermark: Up to which offsets; fixed when it was first taken.
        rows: Written so far.
        total: Events in all; None while they are not counted.
        rate: Rows a second, since it was last taken.
        files: What was written, in order; the manifest and its signature come last.
        manifest: Name of the manifest; empty without files.
        key_id: Which key signed it; empty if none did.
        error: Why it failed, for people; empty if it did not.
    """

    id: UUID
    wanted: ExportRequest
    shape: OutputFormat
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
        """Whether it is still to be run, or running."""
        return self.state in UNDER_WAY

    @property
    def scopes(self) -> tuple[str, ...]:
        """Ids of the scopes whose events it holds; empty for all."""
        wanted = self.wanted.filter
        if wanted.scope is not None and (wanted.scopes is None or wanted.scope in wanted.scopes):
            return (wanted.scope,)
        return wanted.scopes or ()

    @property
    def name(self) -> str:
        """The name of its file, or what those of several are numbered from."""
        days = (_day(self.wanted.start), _day(self.wanted.end))
        return f"audit-log-{days[0]}-{days[1]}-{str(self.id)[-8:]}.{self.shape.format}{self.suffix}"

    @property
    def data(self) -> tuple[JobFile, ...]:
        """The files with events: without the manifest and its signature."""
        return tuple(each for each in self.files if each.name not in {self.manifest, f"{self.manifest}.sig"})

    @property
    def proofs(self) -> tuple[JobFile, ...]:
        """The manifest and its signature."""
        return tuple(file for file in self.files if file not in self.data)

    @property
    def bytes(self) -> int:
        """Length of the files with events."""
        return sum(each.bytes for each in self.data)

    @property
    def remaining(self) -> float | None:
        """Seconds until the rows are written, as far as one can tell."""
        if self.state != "running" or not self.rate or self.total is None:
            return None
        return max(0, self.total - self.rows) / self.rate

    def to_dict(self) -> dict[str, object]:
        """All of it, for people and programs."""
        times = ("requested_at", "started_at", "ended_at", "changed_at", "expires_at")
        found = {name: getattr(self, name) for name in times}
        return {
            "id": str(self.id),
            "state": self.state,
            **_asked(self),
            **{name: None if value is None else format_timestamp(value) for name, value in found.items()},
            "worker": self.worker,
            "rows": self.rows,
            "total": self.total,
            "rate": round(self.rate, 1),
            "remaining_seconds": None if self.remaining is None else round(self.remaining, 1),
            "files": [
                {"name": each.name, "rows": each.rows, "bytes": each.bytes, "sha256": each.sha256}
                for each in self.files
            ],
            "manifest": self.manifest or None,
            "key_id": self.key_id or None,
            "error": self.error or None,
        }


def request_json(job: ExportJob) -> str:
    """What was asked for and by whom: the record on the topic, and a column of the state."""
    found = {"id": str(job.id), "requested_at": format_timestamp(job.requested_at), **_asked(job)}
    return json.dumps(found, ensure_ascii=False)


def job_from_request(text: str | bytes) -> ExportJob:
    """The job of such a text, without a state.

    Raises:
        ExportError: It is no such text.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        asked = found["requester"]
        requested_at = parse_timestamp(found["requested_at"])
        return ExportJob(
            id=UUID(found["id"]),
            wanted=ExportRequest.from_dict(found),
            shape=OutputFormat(format=found["format"], profile=found["profile"], split_rows=found["split_rows"]),
            suffix=_SUFFIXES[found["suffix"]],
            requester=Entity(
                id=asked["id"], type=asked["type"], name=asked["name"], attributes=_strings(asked["attributes"])
            ),
            label=found["label"],
            requested_at=requested_at,
            queued_at=requested_at,
            changed_at=requested_at,
        )
    except (AuditstreamError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise ExportError(f"this is no request for an export: {error}") from error


def _asked(job: ExportJob) -> dict[str, object]:
    return {
        **job.wanted.to_dict(),
        "format": job.shape.format,
        "profile": job.shape.profile,
        "split_rows": job.shape.split_rows,
        "suffix": job.suffix,
        "requester": {
            "id": job.requester.id,
            "type": job.requester.type,
            "name": job.requester.name,
            "attributes": dict(job.requester.attributes),
        },
        "label": job.label,
    }


def _strings(found: Mapping[str, str]) -> dict[str, str]:
    return dict(found)


def _day(nanoseconds: int) -> str:
    return f"{datetime.fromtimestamp(nanoseconds // NANOSECONDS, UTC):%Y%m%d}"
