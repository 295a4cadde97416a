"""``auditstream topics``."""

import dataclasses

import click
from typed_settings import click_options

from auditstream_ops.deploy.topics import TopicPlan, create_topics, register_schema
from auditstream_schemas.settings import RequestSettings, loaders
from auditstream_sink import DeadLetterSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopicSettings(DeadLetterSettings, RequestSettings, TopicPlan):
    """The names and sizes of the topics, their broker and the registry."""


@click.command()
@click_options(TopicSettings, loaders(), argname="settings", show_envvars_in_help=True)
def topics(settings: TopicSettings) -> None:
    """Create the Kafka topics, and register the event's schema.

    A deploy step: services and sinks never do either at run time. A topic that exists is not changed.
    """
    names = (settings.topic, settings.dead_letters, settings.requests)
    created = create_topics(settings, settings, dead_letter_topic=names[1], request_topic=names[2])
    for name in names:
        click.echo(f"{'created' if name in created else 'exists '} topic {name}")
    schema_id = register_schema(settings, settings.topic)
    click.echo(f"schema {schema_id} is registered for subject {settings.topic}-value")
