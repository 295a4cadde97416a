"""Exports as evidence: audit events exactly once each, in order, all of them or none, with a signed manifest."""

from auditstream_export.export import ExportResult, Progress, export_events, write_events
from auditstream_export.files.part_file import FileSummary
from auditstream_export.formats.output_format import Format, OutputFormat, format_of
from auditstream_export.formats.rows import event_json_from_row
from auditstream_export.jobs.export_job import ExportJob, JobFile, JobState
from auditstream_export.jobs.export_jobs import ExportJobs, OpenFile
from auditstream_export.jobs.exporter import Exporter
from auditstream_export.query.request import ExportFilter, ExportRequest
from auditstream_export.query.watermark import Position, Watermark
from auditstream_export.settings import ExportSettings, JobSettings

__all__ = [
    "ExportFilter",
    "ExportJob",
    "ExportJobs",
    "ExportRequest",
    "ExportResult",
    "ExportSettings",
    "Exporter",
    "FileSummary",
    "Format",
    "JobFile",
    "JobSettings",
    "JobState",
    "OpenFile",
    "OutputFormat",
    "Position",
    "Progress",
    "Watermark",
    "event_json_from_row",
    "export_events",
    "format_of",
    "write_events",
]
