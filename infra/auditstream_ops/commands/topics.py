"""``auditstream topics``."""

import dataclasses

import click
from typed_settings import click_options

from auditstream_ops.deploy.topics import TopicPlan, create_topics, register_schema
from auditstream_schemas.settings import RequestSettings, loaders
from auditstream_sink import DeadLetterSettings

_PLAN = TopicPlan()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopicSettings(DeadLetterSettings, RequestSettings):
    """The names of the topics, their broker and the registry."""


@click.command()
@click_options(TopicSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option("--partitions", default=_PLAN.partitions, show_default=True, help="Partitions of a new event topic.")
@click.option(
    "--replication", default=_PLAN.replication, show_default=True, help="Copies of each partition; 3 in production."
)
@click.option(
    "--retention-hours",
    default=_PLAN.retention_hours,
    show_default=True,
    help="How long the broker keeps events. If ClickHouse is away for longer, events are lost.",
)
@click.option(
    "--dead-letter-retention-hours",
    default=_PLAN.dead_letter_retention_hours,
    show_default=True,
    help="How long the broker keeps dead letters, which a person resolves.",
)
@click.option(
    "--request-partitions",
    default=_PLAN.request_partitions,
    show_default=True,
    help="Partitions of a new topic of export requests: the maximum number of exporters at work.",
)
def topics(
    settings: TopicSettings,
    *,
    partitions: int,
    replication: int,
    retention_hours: int,
    dead_letter_retention_hours: int,
    request_partitions: int,
) -> None:
    """Create the Kafka topics, and register the event's schema.

    A deploy step: services and sinks never do either at run time. A topic that exists is not changed.
    """
    plan = TopicPlan(
        partitions=partitions,
        replication=replication,
        retention_hours=retention_hours,
        dead_letter_retention_hours=dead_letter_retention_hours,
        request_partitions=request_partitions,
    )
    created = create_topics(settings, plan, dead_letter_topic=settings.dead_letters, request_topic=settings.requests)
    for name in (settings.topic, settings.dead_letters, settings.requests):
        click.echo(f"{'created' if name in created else 'exists '} topic {name}")
    schema_id = register_schema(settings, settings.topic)
    click.echo(f"schema {schema_id} is registered for subject {settings.topic}-value")
