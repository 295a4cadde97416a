"""``auditstream migrate``."""

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import connect
from auditstream_ops.deploy import migrate as migrations
from auditstream_schemas.settings import ClickHouseSettings, loaders


@click.command()
@click_options(ClickHouseSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option("--dry-run", is_flag=True, help="Print the SQL that is pending; change nothing.")
def migrate(settings: ClickHouseSettings, *, dry_run: bool) -> None:
    """Create or update the tables in ClickHouse.

    A deploy step: run it before a new version of the sink starts. It applies the migrations that the database
    does not have yet, in order. It is safe to run again, also after it was interrupted.
    """
    client = connect(settings)
    database = settings.clickhouse_database
    if dry_run:
        for migration in migrations.pending(client, database):
            click.echo(f"-- {migration.version:04d}_{migration.name}")
            for statement in migration.statements:
                click.echo(f"{statement};\n")
        return
    applied = migrations.migrate(client, database)
    for migration in applied:
        click.echo(f"applied {migration.version:04d}_{migration.name}")
    if not applied:
        click.echo(f"database {database} is up to date")
