"""Settings of exports, beyond where the events are."""

import dataclasses
from pathlib import Path

from auditstream_schemas.errors import SettingsError
from auditstream_schemas.settings import AuditTrailSettings, ClickHouseSettings, RequestSettings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings(ClickHouseSettings):
    """Where the events are, and what manifests are signed with."""

    export_key_file: Path | None = setting(
        None, "Private key (Ed25519, PEM) that signs manifests; `auditstream export keygen` makes one."
    )
    export_spool_dir: Path | None = setting(
        None, "Where files for s3:// lie until they are whole; the system's folder for temporary files by default."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSettings(ExportSettings, RequestSettings, AuditTrailSettings):
    """Exports on demand: how requests travel, where the files lie, and how many may be asked for."""

    export_target: str = setting(
        "", "Where exporters write: a folder or s3://bucket/folder, which whoever hands the files out must reach, too."
    )
    export_group: str = setting("auditstream-exporter", "Consumer group of the exporters, which share the requests.")
    export_quota: int = setting(20, "Exports of an organisation's events in a day (UTC); 0 sets no limit.")
    export_expire_days: float = setting(30.0, "Files are removed so many days after their export has finished.")
    session_timeout_ms: int = setting(
        45_000, "After so long without a heartbeat the group gives this worker's partitions to another (classic)."
    )

    def checked(self) -> "JobSettings":
        """Return the settings if jobs can be run, or their files handed out, with them.

        Raises:
            SettingsError: A setting is missing or makes no sense; names it.
        """
        if not self.export_target:
            raise SettingsError(
                "AUDITSTREAM_EXPORT_TARGET is not set: name the folder, or s3://bucket/folder, of files"
            )
        if self.export_quota < 0:
            raise SettingsError(f"AUDITSTREAM_EXPORT_QUOTA is {self.export_quota}: write 0 for no limit, or more")
        if self.export_expire_days <= 0:
            raise SettingsError(f"AUDITSTREAM_EXPORT_EXPIRE_DAYS is {self.export_expire_days}: write more than 0")
        return self
