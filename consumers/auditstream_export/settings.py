"""Settings of exports, beyond where the events are."""

import dataclasses
from pathlib import Path

from auditstream_schemas.settings import ClickHouseSettings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings(ClickHouseSettings):
    """Where the events are, and what manifests are signed with."""

    export_key_file: Path | None = setting(
        None, "Private key (Ed25519, PEM) that signs manifests; `auditstream export keygen` makes one."
    )
    export_spool_dir: Path | None = setting(
        None, "Where files for s3:// lie until they are whole; the system's folder for temporary files by default."
    )
