"""Files of an export: written whole or not at all, on the local disk or in a bucket."""

from auditstream_export.files.directory import Directory, open_directory, split_target
from auditstream_export.files.export_writer import ExportWriter, is_resumable, journal_path, open_writer
from auditstream_export.files.part_file import Digest, FileSummary, RowRanges, range_size, rows_of

__all__ = [
    "Digest",
    "Directory",
    "ExportWriter",
    "FileSummary",
    "RowRanges",
    "is_resumable",
    "journal_path",
    "open_directory",
    "open_writer",
    "range_size",
    "rows_of",
    "split_target",
]
