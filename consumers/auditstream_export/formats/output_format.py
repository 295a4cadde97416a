"""The format of an export's files, how cells are written, and how many rows each file has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from auditstream_schemas.errors import ExportError

Format = Literal["csv", "ndjson", "parquet"]
Profile = Literal["raw", "spreadsheet"]
FORMATS: tuple[Format, ...] = get_args(Format)
PROFILES: tuple[Profile, ...] = get_args(Profile)
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_FORMAT_SUFFIXES: dict[str, Format] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """The format of the files of an export.

    Attributes:
        format: ``csv`` (RFC 4180, one header per file), ``ndjson`` (one event per line) or ``parquet``.
        profile: ``raw``: cells are exactly the values of the events. ``spreadsheet``, for csv only: no cell is
            read as a formula by a spreadsheet program.
        split_rows: Rows per file of an export of several files; None for one file.

    Raises:
        ExportError: The values contradict each other.
    """

    format: Format = "csv"
    profile: Profile = "raw"
    split_rows: int | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS or self.profile not in PROFILES:
            raise ExportError(f"unknown format {self.format!r} or profile {self.profile!r}")
        if self.profile == "spreadsheet" and self.format != "csv":
            raise ExportError(f"the profile spreadsheet is for csv, not for {self.format}")
        if self.split_rows is not None and self.split_rows < 1:
            raise ExportError("split_rows must be at least 1")
        if self.split_rows is not None and self.format == "parquet":
            raise ExportError("parquet cannot be split: export smaller ranges instead")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "OutputFormat":
        """Read the format from a manifest or a request, where `dataclasses.asdict` wrote it. Raises ExportError."""
        try:
            return cls(format=fields["format"], profile=fields["profile"], split_rows=fields["split_rows"])
        except (KeyError, TypeError) as error:
            raise ExportError(f"the output format is malformed: {error}") from error

    def check_name(self, name: str) -> None:
        """Raise ExportError if the suffix of a file's name would compress a parquet file."""
        if self.format == "parquet" and compression_of(name):
            raise ExportError(f"{name}: parquet is compressed already, leave out the suffix")


def format_of(name: str) -> Format:
    """The format that the suffix of a file's name selects, after a ``.gz`` or ``.zst`` is removed; csv by default."""
    for suffix in _COMPRESSIONS:
        name = name.removesuffix(suffix)
    return next((format_ for suffix, format_ in _FORMAT_SUFFIXES.items() if name.endswith(suffix)), "csv")


def compression_of(name: str) -> str | None:
    """``gzip`` or ``zstd`` if the file's name ends in ``.gz`` or ``.zst``, else None."""
    return next((compression for suffix, compression in _COMPRESSIONS.items() if name.endswith(suffix)), None)


def numbered_name(name: str, number: int) -> str:
    """The name of the n-th file of several: ``january.csv.gz`` becomes ``january-00001.csv.gz``."""
    stem, dot, suffixes = name.partition(".")
    return f"{stem}-{number:05d}{dot}{suffixes}"
