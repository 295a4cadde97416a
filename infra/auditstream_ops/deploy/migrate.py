"""Applies numbered SQL migrations to ClickHouse.

A migration is a file ``NNNN_name.sql`` of statements that each end in ``;`` at the end of a line. ClickHouse has no
transactions for DDL, so every statement can be run again (``IF NOT EXISTS``, ``OR REPLACE``). A migration that was
interrupted is run once more from its start.
"""

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

from clickhouse_connect.driver.client import Client

from auditstream_schemas.errors import OperationError, SettingsError
from auditstream_storage import RETENTION_MONTHS

_DATABASE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql\Z")
_END = re.compile(r";[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One migration: the number and the name of its file, the SQL, and the SHA-256 of the file as shipped."""

    version: int
    name: str
    statements: tuple[str, ...]
    checksum: str


def checked_database(name: str) -> str:
    """Return a database name that is safe to use in SQL.

    Raises:
        SettingsError: The name is not a plain identifier.
    """
    if not _DATABASE_NAME.match(name):
        raise SettingsError(
            f"AUDITSTREAM_CLICKHOUSE_DATABASE is {name!r}: use letters, digits and _, not a digit first"
        )
    return name


def migrations(database: str) -> list[Migration]:
    """All migrations that this version ships, in order; raises SettingsError as `checked_database` does."""
    checked_database(database)
    shipped = []
    for file in resources.files("auditstream_ops").joinpath("migrations").iterdir():
        if match := _FILE_NAME.match(file.name):
            text = file.read_text("utf-8")
            sql = text.replace("{database}", database).replace("{retention_months}", str(RETENTION_MONTHS))
            statements = tuple(statement.strip() for statement in _END.split(sql) if statement.strip())
            checksum = hashlib.sha256(text.encode()).hexdigest()
            shipped.append(Migration(version=int(match[1]), name=match[2], statements=statements, checksum=checksum))
    return sorted(shipped, key=lambda migration: migration.version)


def pending(client: Client, database: str) -> list[Migration]:
    """The migrations that ClickHouse does not have yet; changes nothing.

    Raises:
        OperationError: A migration was applied in another form than this version ships.
    """
    applied = _applied(client, database)
    shipped = migrations(database)
    for migration in shipped:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise OperationError(
                f"migration {migration.version:04d}_{migration.name} was applied to {database} in another form; "
                "a released migration never changes: add a new one instead"
            )
    return [migration for migration in shipped if migration.version not in applied]


def migrate(client: Client, database: str) -> list[Migration]:
    """Apply the pending migrations and return them. Safe to call again, also after a crash. Raises as `pending`."""
    missing = pending(client, database)
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}", use_database=False)
    client.command(
        f"CREATE TABLE IF NOT EXISTS {database}.schema_migrations "
        "(version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC')) "
        "ENGINE = ReplacingMergeTree ORDER BY version",
        use_database=False,
    )
    for migration in missing:
        for statement in migration.statements:
            client.command(statement, use_database=False)
        client.command(
            f"INSERT INTO {database}.schema_migrations "
            "SELECT {version:UInt32}, {name:String}, {checksum:String}, now64(3)",
            parameters={"version": migration.version, "name": migration.name, "checksum": migration.checksum},
            use_database=False,
        )
    return missing


def _applied(client: Client, database: str) -> dict[int, str]:
    exists = client.command(
        "SELECT count() FROM system.tables WHERE database = {database:String} AND name = 'schema_migrations'",
        parameters={"database": checked_database(database)},
        use_database=False,
    )
    if not exists:
        return {}
    rows = client.query(f"SELECT version, checksum FROM {database}.schema_migrations FINAL").result_rows
    return {int(version): str(checksum) for version, checksum in rows}
