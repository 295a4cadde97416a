"""``auditstream grants``."""

import click

from auditstream_ops.deploy.migrate import checked_database
from auditstream_storage.grants import ROLES, role_named, to_sql, user_sql


@click.command()
@click.option(
    "--database",
    default="audit",
    show_default=True,
    envvar="AUDITSTREAM_CLICKHOUSE_DATABASE",
    show_envvar=True,
    help="Database of the audit tables.",
)
@click.option(
    "--role",
    "names",
    type=click.Choice([role.name for role in ROLES]),
    multiple=True,
    help="Only this role; can be repeated.  [default: all]",
)
def grants(*, database: str, names: tuple[str, ...]) -> None:
    """Print the SQL that gives each part of auditstream its own ClickHouse role, with the least rights it needs.

    A ClickHouse administrator runs the output; running it again changes nothing:

    \b
        auditstream grants | clickhouse-client --multiquery

    Then create a user for each role. The statements for that are in the output as comments, because only you know the
    passwords. Start each part with its own user: AUDITSTREAM_CLICKHOUSE_USER and AUDITSTREAM_CLICKHOUSE_PASSWORD.

    Run `auditstream migrate` as the migrator. The views run with the rights of the user that created them, so keep
    that user. An analyst then needs no right on any table, only on the view `events`.

    To show an analyst the events of one scope only, add a row policy on the view, and one for all other users:

    \b
        CREATE ROW POLICY acme ON audit.events USING scope_id = 'acme' TO somebody;
        CREATE ROW POLICY others ON audit.events USING true TO ALL EXCEPT somebody;
    """  # noqa: D301 - click reads this character as its mark of lines that are not to be wrapped
    checked_database(database)
    for role in [role_named(name) for name in names] or ROLES:
        click.echo(f"-- {role.name}: {role.purpose}")
        for statement in to_sql(database, [role]):
            click.echo(f"{statement};")
        click.echo(f"-- {user_sql(role, '<password>')};\n")
