"""Output formats: CSV, NDJSON and Parquet."""

from auditstream_export.formats.output_format import (
    FORMATS,
    PROFILES,
    Format,
    OutputFormat,
    Profile,
    compression_of,
    numbered_name,
)
from auditstream_export.formats.parquet import stored_rows
from auditstream_export.formats.records import CSV, LINES, Chunk, Layout, Records

__all__ = [
    "CSV",
    "FORMATS",
    "LINES",
    "PROFILES",
    "Chunk",
    "Format",
    "Layout",
    "OutputFormat",
    "Profile",
    "Records",
    "compression_of",
    "numbered_name",
    "stored_rows",
]
