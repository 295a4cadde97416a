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
    """Bring the tables up to date.

    A deploy step, to be run before a new version of the sink. Steps that were applied are left alone;
    running it again, also after it broke off, is safe.
    """
    client = connect(settings)
    database = settings.clickhouse_database
    if dry_run:
        for step in migrations.pending(client, database):
            click.echo(f"-- {step.version:04d}_{step.name}")
            for statement in step.statements:
                click.echo(f"{statement};\n")
        return
    done = migrations.migrate(client, database)
    for step in done:
        click.echo(f"applied {step.version:04d}_{step.name}")
    if not done:
        click.echo(f"database {database} is up to date")
