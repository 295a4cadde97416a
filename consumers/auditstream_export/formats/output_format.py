"""What an export's files look like: their format, the spelling of their cells, and how many rows each holds."""

from dataclasses import dataclass
from typing import Literal, get_args

from auditstream_schemas.errors import ExportError

Format = Literal["csv", "ndjson", "parquet"]
Profile = Literal["raw", "spreadsheet"]
FORMATS: tuple[Format, ...] = get_args(Format)
PROFILES: tuple[Profile, ...] = get_args(Profile)
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """What an export's files look like.

    Attributes:
        format: ``csv`` (RFC 4180, one header a file), ``ndjson`` (one event a line) or ``parquet``.
        profile: ``raw``: values are exactly what the events hold. ``spreadsheet``, for csv alone: as spreadsheet
            programs read them without harm.
        split_rows: Rows of a file, when there are to be several; None for one file.

    Raises:
        ExportError: They do not go together.
    """

    format: Format = "csv"
    profile: Profile = "raw"
    split_rows: int | None = None

    def __post_init__(self) -> None:
        if self.profile == "spreadsheet" and self.format != "csv":
            raise ExportError(f"the profile spreadsheet is for csv, not for {self.format}")
        if self.split_rows is not None and self.split_rows < 1:
            raise ExportError("a file has one row at least")
        if self.split_rows is not None and self.format == "parquet":
            raise ExportError("parquet is not split: it is read in parts as it is; ask for smaller ranges instead")


def format_of(name: str) -> Format:
    """The format that a file's name tells by its suffix, that of a compression left out; csv if it tells none."""
    plain = name
    for suffix in _COMPRESSED:
        plain = plain.removesuffix(suffix)
    found: dict[str, Format] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
    return next((format_ for suffix, format_ in found.items() if plain.endswith(suffix)), "csv")


def compression_of(name: str) -> str | None:
    """``gzip`` or ``zstd`` if the file's name ends in ``.gz`` or ``.zst``, else None."""
    return next((kind for suffix, kind in _COMPRESSED.items() if name.endswith(suffix)), None)


def numbered(name: str, number: int) -> str:
    """The name of the n-th file of several: ``january.csv.gz`` becomes ``january-00001.csv.gz``."""
    stem, dot, suffixes = name.partition(".")
    return f"{stem}-{number:05d}{dot}{suffixes}"
