"""Numbered SQL migrations: which there are, which ClickHouse has, and applying the rest.

A migration is a file ``NNNN_name.sql`` of statements that each end in ``;`` at the end of a line.
ClickHouse has no transactions for DDL, so every statement is written to be run again
(``IF NOT EXISTS``, ``OR REPLACE``): a migration that broke off half-way is simply run once more.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from clickhouse_connect.driver.client import Client

from auditstream_schemas.errors import OperationError, SettingsError
from auditstream_storage.retention import RETENTION_MONTHS

_DATABASE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered step.

    Attributes:
        version: Its number; steps are applied in this order, without gaps.
        name: What it makes.
        statements: SQL, the database's name filled in.
        checksum: SHA-256 of the file as shipped, hexadecimal.
    """

    version: int
    name: str
    statements: tuple[str, ...]
    checksum: str


def checked_database(name: str) -> str:
    """Return a database name that is safe to stand in SQL.

    Raises:
        SettingsError: It is not a plain identifier.
    """
    if not _DATABASE_NAME.match(name):
        raise SettingsError(
            f"AUDITSTREAM_CLICKHOUSE_DATABASE is {name!r}: use letters, digits and _, not a digit first"
        )
    return name


def migrations(database: str) -> list[Migration]:
    """All migrations that this version ships, in order.

    Raises:
        SettingsError: The database's name is not a plain identifier.
    """
    checked_database(database)
    found = []
    for file in resources.files("auditstream_ops").joinpath("migrations").iterdir():
        match = _FILE_NAME.match(file.name)
        if match is None:
            continue
        text = file.read_text("utf-8")
        found.append(
            Migration(
                version=int(match[1]),
                name=match[2],
                statements=_statements(
                    text.replace("{database}", database).replace("{retention_months}", str(RETENTION_MONTHS))
                ),
                checksum=hashlib.sha256(text.encode()).hexdigest(),
            )
        )
    return sorted(found, key=lambda migration: migration.version)


def pending(client: Client, database: str) -> list[Migration]:
    """Migrations that ClickHouse does not have yet; changes nothing.

    Raises:
        OperationError: ClickHouse has a step that differs from the shipped one.
    """
    applied = _applied(client, database)
    steps = migrations(database)
    for step in steps:
        if step.version in applied and applied[step.version] != step.checksum:
            raise OperationError(
                f"migration {step.version:04d}_{step.name} was applied to {database} in another form; "
                "a released migration never changes: add a new one instead"
            )
    return [step for step in steps if step.version not in applied]


def migrate(client: Client, database: str) -> list[Migration]:
    """Apply what is pending and return it. Safe to call again, and after a crash half-way.

    Raises:
        OperationError: ClickHouse has a step that differs from the shipped one.
    """
    steps = pending(client, database)
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}", use_database=False)
    client.command(
        f"CREATE TABLE IF NOT EXISTS {database}.schema_migrations "
        "(version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC')) "
        "ENGINE = ReplacingMergeTree ORDER BY version",
        use_database=False,
    )
    for step in steps:
        for statement in step.statements:
            client.command(statement, use_database=False)
        client.command(
            f"INSERT INTO {database}.schema_migrations "
            "SELECT {version:UInt32}, {name:String}, {checksum:String}, now64(3)",
            parameters={"version": step.version, "name": step.name, "checksum": step.checksum},
            use_database=False,
        )
    return steps


def _applied(client: Client, database: str) -> dict[int, str]:
    exists = client.command(
        "SELECT count() FROM system.tables WHERE database = {database:String} AND name = 'schema_migrations'",
        parameters={"database": checked_database(database)},
        use_database=False,
    )
    if not exists:
        return {}
    rows: Sequence[Sequence[object]] = client.query(
        f"SELECT version, checksum FROM {database}.schema_migrations FINAL"
    ).result_rows
    return {int(str(version)): str(checksum) for version, checksum in rows}


def _statements(text: str) -> tuple[str, ...]:
    parts = re.split(r";[ \t]*$", text, flags=re.MULTILINE)
    return tuple(part.strip() for part in parts if part.strip())
