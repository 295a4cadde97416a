"""Exports that viewers ask for: what the page needs of whoever runs them."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from auditstream_admin.auth.access import Origin
from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.errors import DeniedError

ExportState = Literal["queued", "running", "finished", "failed", "cancelled", "expired"]
ExportFormat = Literal["csv", "ndjson", "parquet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJobView:
    """An export that somebody asked for.

    Attributes:
        id: Its id.
        state: What has become of it.
        scopes: Ids of the scopes whose events it holds: all that the requester saw, or the one they asked for.
        filter: The query of the page's URL that it was asked for with.
        span: The range of time.
        format: Of the file.
        requested_by: Subject of who asked.
        requested_at: When, nanoseconds since the epoch.
        rows: Events written so far.
        total: Events in all; None while they are not counted.
        rate: Events a second, of late; None while it is not running, or nothing is written yet.
        remaining: Seconds until the events are written, as far as one can tell; None while one cannot.
        size: Bytes of the files with events; None while there are none.
        sha256: Of the file, hexadecimal; None while it is not there, or where there are several.
        files: Names of the files, those with events first, then the manifest and its signature.
        expires_at: When the file goes, nanoseconds since the epoch; None while it is not there.
        error: Why it failed, for people; None if it did not.
    """

    id: UUID
    state: ExportState
    scopes: tuple[str, ...]
    filter: str
    span: TimeSpan
    format: ExportFormat
    requested_by: str
    requested_at: int
    rows: int = 0
    total: int | None = None
    rate: float | None = None
    remaining: float | None = None
    size: int | None = None
    sha256: str | None = None
    files: tuple[str, ...] = ()
    expires_at: int | None = None
    error: str | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it may still be cancelled."""
        return self.state in {"queued", "running"}

    @property
    def data(self) -> tuple[str, ...]:
        """Names of the files with events."""
        return tuple(name for name in self.files if name not in self.proofs)

    @property
    def proofs(self) -> tuple[str, ...]:
        """Names of the manifest and its signature."""
        return tuple(name for name in self.files if name.endswith((".manifest.json", ".manifest.json.sig")))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFile:
    """A finished file, to be sent piece by piece.

    Attributes:
        name: What the browser is to call it.
        size: Bytes.
        media_type: Its MIME type.
        pieces: Its content.
    """

    name: str
    size: int
    media_type: str
    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who does something with exports, and by which request.

    Attributes:
        viewer: Who.
        origin: Where the request comes from.
    """

    viewer: Viewer
    origin: Origin


class ExportService(Protocol):
    """Runs exports. Every method may block on the network; none is asked for what a viewer may not see.

    What is done is an event ``audit_log.export.*``, which the service emits; if it cannot, nothing is done.
    """

    def request(self, wanted: EventFilter, span: TimeSpan, format: ExportFormat, *, by: Asker) -> ExportJobView:
        """Ask for an export of what the viewer sees; the export runs elsewhere.

        Raises:
            DeniedError: The quota is used up; the message says so.
            AdminError: It cannot be asked for.
        """

    def jobs(self, scopes: Sequence[str] | None) -> Sequence[ExportJobView]:
        """The latest jobs that concern one of these scopes, newest first; None for all."""

    def job(self, id: UUID) -> ExportJobView | None:
        """One job, or None."""

    def cancel(self, id: UUID, *, by: Asker) -> None:
        """Stop a job that is under way; one that has ended stays as it is."""

    def open(self, id: UUID, name: str | None, *, by: Asker) -> AbstractContextManager[ExportFile]:
        """One of a finished job's files, the first if none is named.

        Raises:
            AdminError: It is not there (any more).
        """


class ViewedExports:
    """Exports as one viewer may see them: the one place where jobs are told apart by scope."""

    def __init__(self, service: ExportService, by: Asker) -> None:
        self._service = service
        self._by = by

    def request(self, wanted: EventFilter, span: TimeSpan, format: ExportFormat) -> ExportJobView:
        """Ask for an export.

        Raises:
            DeniedError: The viewer may not, or the quota is used up.
            AdminError: It cannot be asked for.
        """
        self._may_change()
        if wanted.scope is not None and not self._by.viewer.may_see(wanted.scope):
            raise DeniedError("exports hold the events of your own organisations alone")
        return self._service.request(wanted, span, format, by=self._by)

    def jobs(self) -> list[ExportJobView]:
        """The latest jobs, newest first."""
        viewer = self._by.viewer
        found = self._service.jobs(None if viewer.sees_all else viewer.scopes)
        return [job for job in found if self._sees(job)]

    def job(self, id: UUID) -> ExportJobView | None:
        """One job; None also if it is not for this viewer to see."""
        job = self._service.job(id)
        return job if job is not None and self._sees(job) else None

    def cancel(self, job: ExportJobView) -> None:
        """Stop a job.

        Raises:
            DeniedError: The viewer may not.
        """
        self._may_change()
        self._service.cancel(job.id, by=self._by)

    def open(self, job: ExportJobView, name: str | None) -> AbstractContextManager[ExportFile]:
        """One of a finished job's files.

        Raises:
            AdminError: It is not there (any more).
        """
        return self._service.open(job.id, name, by=self._by)

    def _sees(self, job: ExportJobView) -> bool:
        viewer = self._by.viewer
        return viewer.sees_all or (bool(job.scopes) and all(map(viewer.may_see, job.scopes)))

    def _may_change(self) -> None:
        if not self._by.viewer.may_export:
            raise DeniedError("auditors read; exports are for the admins of an organisation to request")
