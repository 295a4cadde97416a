"""Settings, declared once: the fields below feed the environment, the command line and the docs.

A field ``topic`` is read from ``AUDITSTREAM_TOPIC`` and offered as ``--topic``. Packages add their own
fields by subclassing several of these. These classes have no slots, because a class cannot have two slotted
bases. Nothing is read at import time.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any, TypeVar

import typed_settings as ts
from typed_settings.types import SecretStr

from auditstream_schemas.errors import SettingsError

ENV_PREFIX = "AUDITSTREAM_"

_T = TypeVar("_T")


def setting(default: Any, text: str) -> Any:
    """Declare one setting: its default and the sentence that ``--help`` and the docs show."""
    return dataclasses.field(default=default, metadata={"typed-settings": {"help": text, "click": {"help": text}}})


@dataclasses.dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    """Brokers and topic of the events."""

    kafka_bootstrap_servers: str = setting("127.0.0.1:9092", "Kafka brokers, host:port, separated by commas.")
    kafka_config_file: Path | None = setting(
        None, "A .properties file of further librdkafka settings (TLS, SASL); one key=value a line."
    )
    topic: str = setting("audit.events", "Topic of the audit events.")

    def librdkafka(self) -> dict[str, str]:
        """The settings that all clients of the broker share, with those of ``kafka_config_file``.

        Raises:
            SettingsError: The file cannot be read, or a line of it is not ``key=value``.
        """
        return {**_properties(self.kafka_config_file), "bootstrap.servers": self.kafka_bootstrap_servers}

    def librdkafka_client(self, name: str) -> dict[str, Any]:
        """The settings of one client. Its log lines go to the logger ``auditstream.kafka.<name>``.

        The command line silences that logger: librdkafka logs a line every 50 ms while a broker is down.
        """
        logger = logging.getLogger(f"auditstream.kafka.{name}")
        return {**self.librdkafka(), "client.id": f"auditstream-{name}", "logger": logger}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestSettings(KafkaSettings):
    """Topic of the requests for exports."""

    export_topic: str = setting("", "Topic of requests for exports; empty means the topic's name with .exports.")

    @property
    def requests(self) -> str:
        """Name of the topic of requests for exports."""
        return self.export_topic or f"{self.topic}.exports"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegistrySettings:
    """The schema registry."""

    schema_registry_url: str = setting(
        "http://127.0.0.1:8081",
        "Schema registry (Confluent REST API); https:// for TLS; user:password@ before the host if needed.",
    )
    schema_registry_ca_file: Path | None = setting(
        None, "Certificate (PEM) of the CA that signed the registry's; the system's CAs by default."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClickHouseSettings:
    """ClickHouse: address, user and database."""

    clickhouse_url: str = setting("http://127.0.0.1:8123", "ClickHouse's HTTP interface; https:// for TLS on any port.")
    clickhouse_ca_file: Path | None = setting(
        None, "Certificate (PEM) of the CA that signed ClickHouse's; the system's CAs by default."
    )
    clickhouse_database: str = setting("audit", "Database of the audit tables.")
    clickhouse_user: str = setting("default", "ClickHouse user.")
    clickhouse_password: SecretStr = setting(SecretStr(""), "Password of the ClickHouse user.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditTrailSettings:
    """The events about the audit log itself."""

    scope_type: str = setting(
        "organization", "Type of the scopes in the events about the audit log itself: the page, tokens, exports."
    )


def loaders() -> list[ts.loaders.Loader]:
    """The sources of settings besides the command line: the environment."""
    return [ts.EnvLoader(ENV_PREFIX)]


def load(cls: type[_T]) -> _T:
    """Read a settings class from the environment.

    Raises:
        SettingsError: A value cannot be read as its type; the message names the variable.
    """
    try:
        return ts.load_settings(cls, loaders())
    except (ts.exceptions.TsError, ExceptionGroup) as error:
        raise malformed(error) from error


def malformed(error: Exception) -> SettingsError:
    """One `SettingsError` for an error of typed-settings, which is a group if several settings are malformed."""
    text = "; ".join(str(part) for part in error.exceptions) if isinstance(error, ExceptionGroup) else str(error)
    return SettingsError(f"a setting is malformed: {text}")


def _properties(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise SettingsError(
            f"cannot read AUDITSTREAM_KAFKA_CONFIG_FILE {path}: {error.strerror}; name a readable file"
        ) from error
    properties = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key, separator, value = (part.strip() for part in line.partition("="))
        if not line.strip() or key.startswith("#"):
            continue
        if not separator or not key:
            raise SettingsError(f"{path}, line {number}: not key=value")
        properties[key] = value
    return properties
