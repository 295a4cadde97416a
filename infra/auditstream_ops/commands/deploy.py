"""``auditstream migrate``, ``topics`` and ``grants``: the deploy steps."""

from dataclasses import dataclass

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import clickhouse_errors, connect
from auditstream_ops.deploy import migrate as migrations
from auditstream_ops.deploy.topics import TopicPlan, create_topics, register_schema
from auditstream_schemas.settings import ClickHouseSettings, RequestSettings, loaders
from auditstream_sink import DeadLetterSettings
from auditstream_storage.grants import ROLES, role_named, to_sql, user_sql


@dataclass(frozen=True, kw_only=True)
class TopicSettings(DeadLetterSettings, RequestSettings, TopicPlan):
    """The names and sizes of the topics, their broker and the registry."""


@click.command()
@click_options(TopicSettings, loaders(), argname="settings", show_envvars_in_help=True)
def topics(settings: TopicSettings) -> None:
    """Create the Kafka topics, and register the event's schema.

    A deploy step: services and sinks do neither at run time. A topic that exists is not changed.
    """
    names = (settings.topic, settings.dead_letters, settings.requests)
    created = create_topics(settings, settings, dead_letter_topic=names[1], request_topic=names[2])
    for name in names:
        click.echo(f"{'created' if name in created else 'exists '} topic {name}")
    schema_id = register_schema(settings, settings.topic)
    click.echo(f"schema {schema_id} is registered for subject {settings.topic}-value")


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
        with clickhouse_errors():
            pending = migrations.pending(client, database)
        for migration in pending:
            click.echo(f"-- {migration.version:04d}_{migration.name}")
            for statement in migration.statements:
                click.echo(f"{statement};\n")
        return
    with clickhouse_errors():
        applied = migrations.migrate(client, database)
    for migration in applied:
        click.echo(f"applied {migration.version:04d}_{migration.name}")
    if not applied:
        click.echo(f"database {database} is up to date")


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
    migrations.checked_database(database)
    for role in [role_named(name) for name in names] or ROLES:
        click.echo(f"-- {role.name}: {role.purpose}")
        for statement in to_sql(database, [role]):
            click.echo(f"{statement};")
        click.echo(f"-- {user_sql(role, '<password>')};\n")
