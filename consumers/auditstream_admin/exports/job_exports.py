"""Exports as jobs (`auditstream_export.ExportJobs`), as the page asks for them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from auditstream_admin.auth.self_audit import actor_of, request_of
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.time_range import TimeSpan
from auditstream_admin.exports import service as exports
from auditstream_admin.exports.service import Asker, ExportFile, ExportFormat
from auditstream_export import ExportFilter, ExportJob, ExportJobs, ExportRequest, OutputFormat
from auditstream_schemas.errors import (
    AdminError,
    AuditstreamError,
    DeniedError,
    ExportDeniedError,
    ExportSourceError,
    StoreUnavailableError,
)


class JobExports:
    """An `ExportService` over jobs. Each method blocks on ClickHouse, the broker, or where the files are."""

    def __init__(self, jobs: ExportJobs) -> None:
        self._jobs = jobs

    def request(self, wanted: EventFilter, span: TimeSpan, format: ExportFormat, *, by: Asker) -> exports.ExportJobView:
        """Ask for an export; csv and ndjson are compressed.

        Raises:
            DeniedError: The quota is used up.
            StoreUnavailableError: ClickHouse cannot be asked.
            AdminError: It cannot be asked for.
        """
        with _told():
            found = self._jobs.request(
                ExportRequest(start=span.start, end=span.end, filter=_filter(wanted, by)),
                requester=actor_of(by.viewer),
                output_format=OutputFormat(format=format),
                suffix="" if format == "parquet" else ".gz",
                label=wanted.query(),
                request=request_of(by.origin),
            )
        return _shown(found)

    def jobs(self, scopes: Sequence[str] | None) -> Sequence[exports.ExportJobView]:
        """The latest jobs that concern one of these scopes, newest first; None for all.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        with _told():
            return [_shown(job) for job in self._jobs.jobs(scopes)]

    def job(self, id: UUID) -> exports.ExportJobView | None:
        """One job, or None.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        with _told():
            found = self._jobs.job(id)
        return None if found is None else _shown(found)

    def cancel(self, id: UUID, *, by: Asker) -> None:
        """Stop a job that is under way.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
            AdminError: There is no such job.
        """
        with _told():
            self._jobs.cancel(id, by=actor_of(by.viewer), request=request_of(by.origin))

    @contextmanager
    def open(self, id: UUID, name: str | None, *, by: Asker) -> Iterator[ExportFile]:
        """One of a finished job's files.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
            AdminError: It is not there (any more).
        """
        with (
            _told(),
            self._jobs.open(id, by=actor_of(by.viewer), name=name, request=request_of(by.origin)) as file,
        ):
            yield ExportFile(name=file.name, size=file.size, media_type=file.media_type, pieces=file.pieces)


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with exports, as errors of the page."""
    try:
        yield
    except ExportDeniedError as error:
        raise DeniedError(str(error)) from error
    except ExportSourceError as error:
        raise StoreUnavailableError(str(error)) from error
    except AdminError:
        raise
    except AuditstreamError as error:
        raise AdminError(str(error)) from error


def _filter(wanted: EventFilter, by: Asker) -> ExportFilter:
    """What the page shows; the viewer's scopes are a limit of their own, whatever else is asked for."""
    return ExportFilter(
        scopes=None if by.viewer.sees_all else by.viewer.scopes,
        actions=wanted.actions,
        scope=wanted.scope,
        actor=wanted.actor,
        target=wanted.target,
        success=wanted.success,
        request=wanted.request,
        metadata=wanted.metadata,
        text=wanted.text,
    )


def _shown(job: ExportJob) -> exports.ExportJobView:
    data = job.data
    return exports.ExportJobView(
        id=job.id,
        state=job.state,
        scopes=job.scopes,
        filter=job.label,
        span=TimeSpan(start=job.request.start, end=job.request.end),
        format=job.output_format.format,
        requested_by=job.requester.id,
        requested_at=job.requested_at,
        rows=job.rows,
        total=job.total,
        rate=(job.rate or None) if job.state == "running" else None,
        remaining=job.remaining,
        size=job.bytes if data else None,
        sha256=data[0].sha256 if len(data) == 1 else None,
        files=tuple(each.name for each in data) + tuple(each.name for each in job.files if each not in data),
        expires_at=job.expires_at,
        error=job.error or None,
    )
