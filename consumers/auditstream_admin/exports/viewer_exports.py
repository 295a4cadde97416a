"""Export jobs, limited to what one viewer may see and do."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any
from urllib.parse import parse_qsl, quote
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from auditstream_admin.auth.access import Origin
from auditstream_admin.auth.self_audit import actor_of, request_of
from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_export import ExportFilter, ExportJob, ExportJobs, ExportRequest, Format, OutputFormat
from auditstream_schemas.errors import (
    AdminError,
    AuditstreamError,
    DeniedError,
    ExportDeniedError,
    ExportSourceError,
    StoreUnavailableError,
)
from auditstream_storage import EventConditions


class ViewerExports:
    """The export jobs of one viewer. Only this class compares the scopes of a job with those of a viewer.

    Every method may block on ClickHouse, Kafka or the file storage, and may raise `StoreUnavailableError` or
    `AdminError`. Methods with an id raise `HTTPException` 404 if the job does not exist or the viewer may not see it;
    both responses are the same. `ExportJobs` emits an audit event before each action; without the event, the action is
    refused.
    """

    def __init__(self, jobs: ExportJobs, viewer: Viewer, origin: Origin) -> None:
        """Limit the jobs to a viewer; ``origin`` is that of the viewer's request."""
        self._jobs = jobs
        self._viewer = viewer
        self._actor = actor_of(viewer)
        self._request = request_of(origin)

    def request(self, query: str, format: Format, now: int) -> ExportJob:
        """Request an export of the events that the page lists for a query; CSV and NDJSON files are compressed.

        A relative time range ends at ``now``, in nanoseconds since the epoch.

        Raises:
            FilterError: The query is malformed.
            DeniedError: The viewer may not request this export, or the quota is used up.
        """
        self._require_admin()
        event_filter = EventFilter.read(parse_qsl(query, keep_blank_values=True))
        if event_filter.scope is not None and not self._viewer.may_see(event_filter.scope):
            raise DeniedError("exports contain events of your own organisations only")
        span = event_filter.time.span(now)
        # The scopes limit the export to those of the viewer, in addition to the filter of the page.
        conditions: dict[str, Any] = {
            field.name: getattr(event_filter, field.name) for field in fields(EventConditions)
        }
        with _translated_errors():
            export_filter = ExportFilter(scopes=None if self._viewer.sees_all else self._viewer.scopes, **conditions)
            return self._jobs.request(
                ExportRequest(start=span.start, end=span.end, filter=export_filter),
                requester=self._actor,
                output_format=OutputFormat(format=format),
                suffix="" if format == "parquet" else ".gz",
                label=event_filter.query(),
                request=self._request,
            )

    def jobs(self) -> list[ExportJob]:
        """The latest jobs, newest first."""
        with _translated_errors():
            jobs = self._jobs.jobs(None if self._viewer.sees_all else self._viewer.scopes)
        return [job for job in jobs if self._may_see(job)]

    def job(self, id: UUID) -> ExportJob:
        """One job."""
        with _translated_errors():
            job = self._jobs.job(id)
        if job is None or not self._may_see(job):
            raise HTTPException(404, "this export does not exist, or you may not see it")
        return job

    def cancel(self, id: UUID) -> ExportJob:
        """Cancel a job; one that has ended stays as it is.

        Raises:
            DeniedError: The viewer may not cancel exports.
        """
        job = self.job(id)
        self._require_admin()
        with _translated_errors():
            return self._jobs.cancel(job.id, by=self._actor, request=self._request)

    def download(self, id: UUID, name: str | None) -> StreamingResponse:
        """Stream a file of a finished job: the named one, or the first file with events.

        Raises:
            AdminError: The job is not finished, has expired, or has no such file.
        """
        job = self.job(id)
        with ExitStack() as stack:
            with _translated_errors():
                file = stack.enter_context(self._jobs.open(job.id, by=self._actor, name=name, request=self._request))
            open_file = stack.pop_all()

        def pieces() -> Iterator[bytes]:
            with open_file:
                yield from file.pieces

        headers = {"content-length": str(file.size), "content-disposition": _attachment(file.name)}
        return StreamingResponse(pieces(), media_type=file.media_type, headers=headers)

    def _may_see(self, job: ExportJob) -> bool:
        # A job without scopes contains the events of all of them.
        return self._viewer.sees_all or (bool(job.scopes) and all(map(self._viewer.may_see, job.scopes)))

    def _require_admin(self) -> None:
        if not self._viewer.may_export:
            raise DeniedError("auditors may not request or cancel exports; an admin of the organisation may")


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise the errors of the export package as errors of the page."""
    try:
        yield
    except ExportDeniedError as error:
        raise DeniedError(str(error)) from error
    except ExportSourceError as error:
        raise StoreUnavailableError(str(error)) from error
    except AuditstreamError as error:
        raise AdminError(str(error)) from error


def _attachment(name: str) -> str:
    """The header content-disposition (RFC 6266); the name cannot end it or start another header."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
