"""Exports as evidence: audit events exactly once each, in order, whole or not at all, with a signed manifest."""

from auditstream_export.export import ExportResult, Progress, export_events, write_events
from auditstream_export.part_file import FileSummary
from auditstream_export.request import ExportFilter, ExportRequest
from auditstream_export.rows import event_json_from_row
from auditstream_export.settings import ExportSettings
from auditstream_export.shape import Shape, format_of
from auditstream_export.watermark import Position, Watermark

__all__ = [
    "ExportFilter",
    "ExportRequest",
    "ExportResult",
    "ExportSettings",
    "FileSummary",
    "Position",
    "Progress",
    "Shape",
    "Watermark",
    "event_json_from_row",
    "export_events",
    "format_of",
    "write_events",
]
