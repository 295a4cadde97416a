"""The log of exports: events of the catalog's ``audit_log.export.*``, on the same topic as all others."""

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID, uuid5

from uuid_utils.compat import uuid7

from auditstream_export.jobs.export_job import ExportJob, JobFile
from auditstream_export.query.request import ExportFilter
from auditstream_schemas.event import AuditEvent, Entity, Request
from auditstream_schemas.timestamp import format_timestamp

Emit = Callable[[AuditEvent], object]
"""Takes an event; may raise an `AuditstreamError` if it cannot."""

_TARGET = "audit_log_export"


class JobAudit:
    """Says what is done with exports: one event for each scope that it concerns, for each scope's admins to see.

    Every method raises what the callable does.
    """

    def __init__(self, emit: Emit, *, scope_type: str, clock: Callable[[], int]) -> None:
        """Nothing is said yet.

        Args:
            emit: Takes the events.
            scope_type: Type of the scopes.
            clock: Nanoseconds since the epoch.
        """
        self._emit = emit
        self._scope_type = scope_type
        self._clock = clock

    def requested(self, job: ExportJob, by: Entity, request: Request | None) -> None:
        """Somebody asked for an export, or for it once more."""
        payload = {
            "filter": _as_in_a_url(job.request.filter),
            "from": format_timestamp(job.request.start),
            "to": format_timestamp(job.request.end),
            "format": job.output_format.format,
        }
        self._note("request", job, by, payload, request=request)

    def denied(self, job: ExportJob, by: Entity, reason: str, request: Request | None) -> None:
        """Somebody asked for an export that they may not have."""
        self._note("deny", job, by, {"reason": reason}, request=request, success=False)

    def cancelled(self, job: ExportJob, by: Entity, request: Request | None) -> None:
        """Somebody stopped an export."""
        self._note("cancel", job, by, {"rows": job.rows}, request=request)

    def downloaded(self, job: ExportJob, by: Entity, file: JobFile, request: Request | None) -> None:
        """Somebody downloads a file of an export."""
        self._note("download", job, by, {"bytes": file.bytes, "sha256": file.sha256}, request=request)

    def ended(self, job: ExportJob) -> None:
        """An export has finished or failed. Said again, it is the same event, which is stored once."""
        data = job.data
        payload: dict[str, object] = {
            "rows": job.rows if data else 0,
            "bytes": job.bytes,
            "sha256": data[0].sha256 if len(data) == 1 else None,
        }
        if job.error:
            payload["error"] = job.error
        worker = Entity(id=job.worker or "exporter", type="service")
        self._note("finish", job, worker, payload, success=not job.error, again=(job.queued_at, job.ended_at))

    def _note(
        self,
        action: str,
        job: ExportJob,
        actor: Entity,
        payload: Mapping[str, object],
        *,
        request: Request | None = None,
        success: bool = True,
        again: tuple[int, int | None] | None = None,
    ) -> None:
        scopes: Sequence[str | None] = job.scopes or (None,)
        for scope in scopes:
            moment = self._clock() if again is None else again[1]
            self._emit(
                AuditEvent.build(
                    action=f"audit_log.export.{action}",
                    actor=actor,
                    target=Entity(id=str(job.id), type=_TARGET),
                    payload=payload,
                    occurred_at=self._clock() if moment is None else moment,
                    id=_id() if again is None else uuid5(job.id, f"{action} {again[0]} {scope or ''}"),
                    scope=None if scope is None else Entity(id=scope, type=self._scope_type),
                    success=success,
                    request=request,
                )
            )


def _id() -> UUID:
    return uuid7()


def _as_in_a_url(wanted: ExportFilter) -> dict[str, object]:
    """The filter as the page's URL has it: texts and lists of texts."""
    found: dict[str, object] = {} if wanted.scopes is None else {"scopes": list(wanted.scopes)}
    if wanted.actions:
        found["action"] = list(wanted.actions)
    for name in ("scope", "actor", "target", "request"):
        if getattr(wanted, name) is not None:
            found[name] = getattr(wanted, name)
    if wanted.success is not None:
        found["success"] = "true" if wanted.success else "false"
    if wanted.metadata:
        found["meta"] = [f"{key}={value}" for key, value in wanted.metadata]
    if wanted.text is not None:
        found["q"] = wanted.text
    return found
