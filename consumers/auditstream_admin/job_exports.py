"""The page's exports, run by the workers of ``auditstream exporter``.

What the page's users do with exports, the page says itself, with what it knows of the request; so the jobs that are
asked for here say nothing. That one has finished, its worker says.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from uuid import UUID

from auditstream_admin.event_filter import EventFilter
from auditstream_admin.exports import ExportFile, ExportFormat, ExportJob, ExportPart
from auditstream_admin.self_audit import actor_of
from auditstream_admin.time_range import Span
from auditstream_admin.viewer import Viewer
from auditstream_export import ExportFilter, ExportJobs, ExportRequest, JobSettings, Shape
from auditstream_export import ExportJob as Job
from auditstream_schemas.errors import (
    AdminError,
    DeniedError,
    ExportDeniedError,
    ExportError,
    ExportSourceError,
    StoreUnavailableError,
)
from auditstream_schemas.event import AuditEvent


def _said_by_the_page(_event: AuditEvent) -> None:
    """See above."""


class JobExports:
    """An `ExportService` over jobs that run elsewhere."""

    def __init__(self, settings: JobSettings) -> None:
        """Nothing is asked yet.

        Args:
            settings: Where requests go, and where state and files are; ``export_target`` must be set.
        """
        self._jobs = ExportJobs(settings.checked(), _said_by_the_page)

    def close(self) -> None:
        """Give connections back."""
        self._jobs.close()

    def request(self, viewer: Viewer, wanted: EventFilter, span: Span, format: ExportFormat) -> ExportJob:  # noqa: A002
        """Ask for an export; blocks until the request is on its topic.

        Raises:
            DeniedError: The quota is used up.
            AdminError: It cannot be asked for now.
        """
        with _errors():
            found = ExportFilter(
                scopes=None if viewer.sees_all else viewer.scopes,
                actions=wanted.actions,
                scope=wanted.scope,
                actor=wanted.actor,
                target=wanted.target,
                success=wanted.success,
                request=wanted.request,
                metadata=wanted.metadata,
                text=wanted.text,
            )
            job = self._jobs.request(
                ExportRequest(start=span.start, end=span.end, filter=found),
                requester=actor_of(viewer),
                shape=Shape(format=format),
                label=wanted.query(),
            )
        return _shown(job)

    def jobs(self, scopes: Sequence[str] | None) -> Sequence[ExportJob]:
        """The latest jobs that concern one of these scopes, newest first; None for all.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        with _errors():
            return [_shown(job) for job in self._jobs.jobs(scopes)]

    def job(self, id: UUID) -> ExportJob | None:  # noqa: A002 - the public name of the field
        """One job, or None.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        with _errors():
            job = self._jobs.job(id)
        return None if job is None else _shown(job)

    def cancel(self, id: UUID) -> None:  # noqa: A002 - the public name of the field
        """Stop a job that is under way.

        Raises:
            AdminError: It cannot be stopped now.
        """
        with _errors():
            self._jobs.cancel(id, by=actor_of(None))

    @contextmanager
    def open(self, id: UUID, part: ExportPart) -> Iterator[ExportFile]:  # noqa: A002 - likewise
        """A finished job's file.

        Raises:
            AdminError: It is not there (any more).
        """
        with _errors():
            job = self._jobs.job(id)
            manifest = "" if job is None else job.manifest
            name = {"events": None, "manifest": manifest, "signature": f"{manifest}.sig"}[part]
        with ExitStack() as opened:
            with _errors():
                file = opened.enter_context(self._jobs.open(id, by=actor_of(None), name=name))
            yield ExportFile(name=file.name, size=file.size, media_type=file.media_type, pieces=file.pieces)


@contextmanager
def _errors() -> Iterator[None]:
    """Turn what an export raises into what the page answers."""
    try:
        yield
    except ExportDeniedError as error:
        raise DeniedError(str(error)) from error
    except ExportSourceError as error:
        raise StoreUnavailableError(str(error)) from error
    except ExportError as error:
        raise AdminError(str(error)) from error


def _shown(job: Job) -> ExportJob:
    return ExportJob(
        id=job.id,
        state=job.state,
        scopes=job.scopes,
        filter=job.label,
        span=Span(start=job.wanted.start, end=job.wanted.end),
        format=job.shape.format,
        requested_by=job.requester.id,
        requested_at=job.requested_at,
        rows=job.rows,
        total=job.total,
        size=job.bytes if job.data else None,
        sha256=job.data[0].sha256 if len(job.data) == 1 else None,
        is_signed=bool(job.key_id),
        expires_at=job.expires_at,
        error=job.error or None,
    )
