"""Export audit events to CSV files: exactly once each, in order, whole or not at all."""

from auditstream_export.export import ExportResult, Progress, export_events, write_csv
from auditstream_export.request import ExportFilter, ExportRequest
from auditstream_export.rows import event_json_from_row

__all__ = [
    "ExportFilter",
    "ExportRequest",
    "ExportResult",
    "Progress",
    "event_json_from_row",
    "export_events",
    "write_csv",
]
