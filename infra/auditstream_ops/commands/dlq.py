"""``auditstream dlq``."""

import json
from collections import Counter

import click
from typed_settings import click_options

from auditstream_ops.dead_letters import Letter, read_letters
from auditstream_schemas.settings import loaders
from auditstream_sink import SinkSettings


@click.group()
def dlq() -> None:
    """Look at the records that could not be stored.

    Each is kept as it came, with the reason, on the dead-letter topic.
    """


@dlq.command("list")
@click_options(SinkSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option("--reason", help="Only letters of this reason.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a letter.")
def list_letters(settings: SinkSettings, *, reason: str | None, as_json: bool) -> None:
    """List refused records: when, from where, why.

    \b
    Examples:
      auditstream dlq list
      auditstream dlq list --reason payload --json | jq .error
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    counts: Counter[str] = Counter()
    for letter in read_letters(settings):
        if reason is not None and letter.reason != reason:
            continue
        counts[letter.reason] += 1
        click.echo(_json(letter) if as_json else _line(letter))
    if not as_json:
        found = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        click.echo(f"{counts.total()} refused records" + (f": {found}" if found else ""), err=True)


def _line(letter: Letter) -> str:
    when = letter.written_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{when}  {letter.topic}[{letter.partition}]@{letter.offset}  {letter.reason:<20} {letter.error}"


def _json(letter: Letter) -> str:
    return json.dumps(
        {
            "reason": letter.reason,
            "error": letter.error,
            "topic": letter.topic,
            "topic_id": letter.topic_id,
            "partition": letter.partition,
            "offset": letter.offset,
            "written_at": letter.written_at.isoformat(),
            "key": letter.key.decode("utf-8", "replace"),
            "bytes": len(letter.value),
        },
        ensure_ascii=False,
    )
