"""Settings of exports, in addition to the connection to ClickHouse."""

import dataclasses
from pathlib import Path

from auditstream_schemas.errors import SettingsError
from auditstream_schemas.settings import AuditTrailSettings, ClickHouseSettings, RequestSettings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings(ClickHouseSettings):
    """Connection to ClickHouse, signing key and spool directory of exports."""

    export_key_file: Path | None = setting(
        None, "Private key (Ed25519, PEM) that signs manifests; `auditstream export keygen` makes one."
    )
    export_spool_dir: Path | None = setting(
        None, "Local directory for files that are not uploaded to s3:// yet; the temporary directory by default."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSettings(ExportSettings, RequestSettings, AuditTrailSettings):
    """Settings of export jobs: request topic, directory of the files, quota and expiry."""

    export_target: str = setting(
        "", "Directory or s3://bucket/prefix of the files; exporters write there and the admin page reads there."
    )
    export_group: str = setting("auditstream-exporter", "Consumer group of the exporters.")
    export_quota: int = setting(20, "Exports of an organisation's events per day (UTC); 0 for no limit.")
    export_expire_days: float = setting(30.0, "Files are deleted so many days after their export has finished.")
    session_timeout_ms: int = setting(
        45_000, "Time without a heartbeat after which the group gives the partitions to another exporter (classic)."
    )

    def checked(self) -> "JobSettings":
        """Return the settings. Raises SettingsError if a setting that a job needs is missing or out of range."""
        if not self.export_target:
            raise SettingsError(
                "AUDITSTREAM_EXPORT_TARGET is not set: name the directory, or s3://bucket/prefix, of the files"
            )
        if self.export_quota < 0:
            raise SettingsError(f"AUDITSTREAM_EXPORT_QUOTA is {self.export_quota}: set 0 for no limit, or more")
        if self.export_expire_days <= 0:
            raise SettingsError(f"AUDITSTREAM_EXPORT_EXPIRE_DAYS is {self.export_expire_days}: set more than 0")
        return self
