"""The audit trail of exports: events of the catalog's ``audit_log.export.*``."""

from collections.abc import Mapping
from typing import Any

from auditstream_export.jobs.export_job import ExportJob, JobFile
from auditstream_export.query.request import ExportFilter
from auditstream_schemas.event import Entity, Request
from auditstream_schemas.timestamp import format_timestamp
from auditstream_storage import AuditTrail


class JobAudit(AuditTrail):
    """Emits the events about export jobs. Every method raises what the callable `emit` raises."""

    def requested(self, job: ExportJob, by: Entity, request: Request | None) -> None:
        """An export was requested, for the first time or again."""
        payload = {
            "filter": _url_parameters(job.request.filter),
            "from": format_timestamp(job.request.start),
            "to": format_timestamp(job.request.end),
            "format": job.output_format.format,
        }
        self._record_job("request", job, by, payload, request=request)

    def denied(self, job: ExportJob, by: Entity, reason: str, request: Request | None) -> None:
        """An export was requested and denied."""
        self._record_job("deny", job, by, {"reason": reason}, request=request, success=False)

    def cancelled(self, job: ExportJob, by: Entity, request: Request | None) -> None:
        """An export was cancelled."""
        self._record_job("cancel", job, by, {"rows": job.rows}, request=request)

    def downloaded(self, job: ExportJob, by: Entity, file: JobFile, request: Request | None) -> None:
        """A file of an export is downloaded."""
        self._record_job("download", job, by, {"bytes": file.bytes, "sha256": file.sha256}, request=request)

    def ended(self, job: ExportJob) -> None:
        """An export has finished or failed. A second call emits the same event, which is stored once."""
        payload = {"rows": job.rows if job.data else 0, "bytes": job.bytes, "sha256": job.sha256}
        if job.error:
            payload["error"] = job.error
        worker = Entity(id=job.worker or "exporter", type="service")
        same_event = {"occurred_at": job.ended_at, "id_from": (job.id, f"finish {job.queued_at}")}
        self._record_job("finish", job, worker, payload, success=not job.error, **same_event)

    def _record_job(
        self, action: str, job: ExportJob, actor: Entity, payload: Mapping[str, object], **details: Any
    ) -> None:
        target = Entity(id=str(job.id), type="audit_log_export")
        action = f"audit_log.export.{action}"
        self.record(action, actor=actor, payload=payload, scopes=job.scopes, target=target, **details)


def _url_parameters(export_filter: ExportFilter) -> dict[str, object]:
    """The filter with the names and texts of the page's URL."""
    parameters = dict(export_filter.to_dict())
    if export_filter.success is not None:
        parameters["success"] = "true" if export_filter.success else "false"
    if export_filter.metadata:
        del parameters["metadata"]
        parameters["meta"] = [f"{key}={value}" for key, value in export_filter.metadata]
    if export_filter.text is not None:
        parameters["q"] = parameters.pop("text")
    return parameters
