"""Exports as evidence: audit events exactly once each, in order, whole or not at all, with a signed manifest."""

from auditstream_export.export import ExportResult, Progress, export_events, write_events
from auditstream_export.export_jobs import ExportJobs, OpenFile
from auditstream_export.exporter import Exporter
from auditstream_export.jobs import ExportJob, JobFile, JobState
from auditstream_export.part_file import FileSummary
from auditstream_export.request import ExportFilter, ExportRequest
from auditstream_export.rows import event_json_from_row
from auditstream_export.settings import ExportSettings, JobSettings
from auditstream_export.shape import Shape, format_of
from auditstream_export.watermark import Position, Watermark

__all__ = [
    "ExportFilter",
    "ExportJob",
    "ExportJobs",
    "ExportRequest",
    "ExportResult",
    "ExportSettings",
    "Exporter",
    "FileSummary",
    "JobFile",
    "JobSettings",
    "JobState",
    "OpenFile",
    "Position",
    "Progress",
    "Shape",
    "Watermark",
    "event_json_from_row",
    "export_events",
    "format_of",
    "write_events",
]
