"""``auditstream dlq``."""

import functools
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm
from typed_settings import click_options

from auditstream_ops.commands.confirmation import confirm, operator, require_terminal
from auditstream_ops.dead_letters.content import RecordDecoder, event_json
from auditstream_ops.dead_letters.dead_letter import DeadLetter, DeadLetterReader
from auditstream_ops.dead_letters.filter import DeadLetterFilter, parse_name
from auditstream_ops.dead_letters.resolver import EditedRecord, Resolver, ResolverOutcome, edited_record
from auditstream_ops.dead_letters.view import list_json, list_line, show_json, show_lines
from auditstream_schemas.errors import OperationError
from auditstream_schemas.registry import RegistryClient
from auditstream_schemas.settings import loaders
from auditstream_schemas.timestamp import parse_moment
from auditstream_sink import DeadLetterSettings

_CANDIDATES_SHOWN = 5
_NO_MATCH = "no dead letter matches; see `auditstream dlq list`"


@click.group()
def dlq() -> None:
    """List, show, replay or drop dead letters: records that the sink refused.

    The sink writes every record that it cannot store to the dead-letter topic, unchanged and with the reason.
    A dead letter is open until it is replayed (sent again to its topic) or dropped.

    \b
    A typical session:
      auditstream dlq list --state open
      auditstream dlq show 'audit.events[3]@1729'
      auditstream dlq replay --reason unknown_schema
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    """The dead letters that the arguments of a command select."""

    settings: DeadLetterSettings
    conditions: DeadLetterFilter
    decoder: RecordDecoder

    def matching(self, reader: DeadLetterReader, *, resolved: bool = True) -> Iterator[DeadLetter]:
        """The dead letters that match; with ``resolved=False`` only those that are open."""
        for dead_letter in reader.dead_letters():
            if (resolved or dead_letter.state == "open") and self.conditions.matches(dead_letter, self.decoder):
                yield dead_letter


def _parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(map(parse, value))
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=param) from None

    return callback


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Add the conditions and the settings that all subcommands share; the command gets them as a `_Query`."""

    @functools.wraps(command)
    def call(settings: DeadLetterSettings, **options: Any) -> None:
        conditions = DeadLetterFilter(**{name: options.pop(name) for name in DeadLetterFilter.__dataclass_fields__})
        decoder = RecordDecoder(RegistryClient(settings.schema_registry_url, ca_file=settings.schema_registry_ca_file))
        command(_Query(settings=settings, conditions=conditions, decoder=decoder), **options)

    time = _parsed(parse_moment)
    for decorate in reversed(
        (
            click.argument("names", nargs=-1, metavar="[NAME]...", callback=_parsed(parse_name)),
            click.option("--reason", "reasons", metavar="WORD", multiple=True, help="Only this reason; repeatable."),
            click.option(
                "--from",
                "start",
                metavar="TIME",
                callback=time,
                help="Only dead letters written at or after this time: a date (midnight UTC), or ISO-8601 with a zone.",
            ),
            click.option(
                "--to", "end", metavar="TIME", callback=time, help="Only dead letters written before this time."
            ),
            click.option(
                "--action",
                "actions",
                metavar="GLOB",
                multiple=True,
                help="Only records with this action, with * and ?; never a record that cannot be decoded. Repeatable.",
            ),
            click.option("--topic-id", metavar="UUID", help="Only records of the topic with this id."),
            click.option("--partition", type=click.IntRange(min=0), help="Only records of this partition."),
            click.option("--offset", type=click.IntRange(min=0), help="Only records of this offset."),
            click_options(DeadLetterSettings, loaders(), argname="settings", show_envvars_in_help=True),
        )
    ):
        call = decorate(call)
    return call


@dlq.command("list")
@_filtered
@click.option("--state", type=click.Choice(["open", "replayed", "dropped"]), help="Only dead letters in this state.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Print the first N only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each dead letter.")
def list_dead_letters(query: _Query, *, state: str | None, limit: int | None, as_json: bool) -> None:
    """List dead letters: time, name, reason, state, error.

    NAME is TOPIC[PARTITION]@OFFSET, as printed here: the coordinates of the refused record.

    \b
    Examples:
      auditstream dlq list --state open
      auditstream dlq list --reason payload --action 'project.*' --from 2026-01-31
      auditstream dlq list --json | jq -r 'select(.reason == "conflict") | .error'
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    counts: Counter[str] = Counter()
    with DeadLetterReader(query.settings) as reader:
        for dead_letter in query.matching(reader):
            if state is not None and dead_letter.state != state:
                continue
            counts[dead_letter.reason] += 1
            click.echo(json.dumps(list_json(dead_letter), ensure_ascii=False) if as_json else list_line(dead_letter))
            if counts.total() == limit:
                break
    if not as_json:
        first = "the first " if counts.total() == limit else ""
        click.echo(f"{first}{_dead_letters(counts)}", err=True)


@dlq.command(short_help="Show one dead letter with its record.")
@_filtered
@click.option("--raw", "form", flag_value="raw", help="Write the bytes of the record only.")
@click.option("--event", "form", flag_value="event", help="Print the JSON of the event only, for replay --edit.")
@click.option("--json", "form", flag_value="json", help="Print one JSON object.")
def show(query: _Query, *, form: str | None) -> None:
    """Show one dead letter: its source, its reason, its headers and its record.

    A record that can be decoded is printed as the JSON of an event, another one as a hexdump.

    Exit codes: 0 shown; 1 not exactly one dead letter matches; 2 called wrongly.

    \b
    Examples:
      auditstream dlq show 'audit.events[3]@1729'
      auditstream dlq show 'audit.events[3]@1729' --event > event.json
      auditstream dlq show 'audit.events[3]@1729' --raw | xxd
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    with DeadLetterReader(query.settings) as reader:
        dead_letter = _only(query.matching(reader))
    if form == "raw":
        sys.stdout.buffer.write(dead_letter.value)
    elif form == "event":
        record, fault = query.decoder.try_decode(dead_letter)
        if record is None:
            raise OperationError(f"{dead_letter.name} cannot be decoded: {fault}; --raw writes its bytes")
        click.echo(event_json(record))
    elif form == "json":
        click.echo(json.dumps(show_json(dead_letter, query.decoder), ensure_ascii=False))
    else:
        for line in show_lines(dead_letter, query.decoder):
            click.echo(line)


@dlq.command(short_help="Send refused records again to their topic.")
@_filtered
@click.option(
    "--edit",
    "edit",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Send the event in this file (JSON, as show --event prints it) instead; for exactly one dead letter.",
)
@click.option("--new-id", is_flag=True, help="With --edit: allow another id than the dead letter's.")
@click.option("--again", is_flag=True, help="Also send dead letters that were replayed or dropped before.")
@click.option("--why", default="", metavar="TEXT", help="A reason, for later readers of the list.")
@click.option("--dry-run", is_flag=True, help="Print how many would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def replay(
    query: _Query, *, edit: Path | None, new_id: bool, again: bool, why: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Send refused records again to their topic, after the cause has been repaired.

    Bytes, key and headers are those of the original; a header auditstream.replayed-from is added. The sink
    classifies the record again: if it refuses it again, there is a new dead letter. A resolution record on the
    dead-letter topic marks the dead letter as replayed, and the next replay leaves it out.

    --edit sends an event that a person repaired: checked and encoded as the SDK does, under the same id.

    Exit codes: 0 all that matched have been sent, now or before; 1 a record was not delivered, nothing
    matched, or the answer was no; 2 called wrongly.

    \b
    Examples:
      auditstream dlq replay --reason unknown_schema --dry-run
      auditstream dlq replay --reason unknown_schema --from 2026-01-31 --yes
      auditstream dlq replay 'audit.events[3]@1729' --edit event.json
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    if new_id and edit is None:
        raise click.UsageError("--new-id is for --edit")
    require_terminal(yes=yes or dry_run)
    with DeadLetterReader(query.settings) as reader:
        selection = _select(query, reader, again=again)
        edited = None if edit is None else _edited(query, selection, edit.read_bytes(), new_id=new_id)
        for topic in selection.topics:
            reader.partitions(topic)
        resolver = Resolver(query.settings, by=operator(), why=why)
        if dry_run:
            click.echo(f"would replay {_dead_letters(selection.counts)}", err=True)
        outcome = ResolverOutcome()
        if selection.counts and not dry_run:
            confirm(f"Replay {_dead_letters(selection.counts)}?", yes=yes)
            with _progress("replay", selection) as bar:
                chosen = query.matching(reader, resolved=again)
                outcome = resolver.replay(chosen, progress=bar.update, edited=edited)
    result = {
        "replayed": outcome.sent,
        "undelivered": 0 if dry_run else selection.counts.total() - outcome.sent,
        "unresolved": outcome.sent - outcome.resolved,
    }
    _finish(result, selection, outcome, as_json=as_json)


@dlq.command()
@_filtered
@click.option("--why", required=True, metavar="TEXT", help="The reason, for later readers of the list.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def drop(query: _Query, *, why: str, yes: bool, as_json: bool) -> None:
    """Mark dead letters as dropped: their records will not be stored.

    Nothing is deleted: the dead letter is evidence, and stays until the topic's retention ends. A resolution
    record on the dead-letter topic has the operator, the time and the reason.

    Exit codes: 0 all that matched are resolved, now or before; 1 a resolution record was not delivered, nothing
    matched, or the answer was no; 2 called wrongly.

    \b
    Examples:
      auditstream dlq drop 'audit.events[3]@1729' --why 'a load test of ours'
      auditstream dlq drop --reason wire_format --to 2026-02-01 --why 'not our records' --yes
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    if not why.strip():
        raise click.UsageError("--why is empty: give the reason why these records need not be stored")
    require_terminal(yes=yes)
    with DeadLetterReader(query.settings) as reader:
        selection = _select(query, reader, again=False)
        resolver = Resolver(query.settings, by=operator(), why=why)
        outcome = ResolverOutcome()
        if selection.counts:
            confirm(f"Drop {_dead_letters(selection.counts)}?", yes=yes)
            with _progress("drop", selection) as bar:
                outcome = resolver.drop(query.matching(reader, resolved=False), progress=bar.update)
    result = {"dropped": outcome.resolved, "undelivered": selection.counts.total() - outcome.resolved}
    _finish(result, selection, outcome, as_json=as_json)


@dataclass(slots=True, kw_only=True)
class _Selection:
    counts: Counter[str] = field(default_factory=Counter)  # dead letters to resolve, by reason
    resolved_before: int = 0
    topics: set[str] = field(default_factory=set)
    first: DeadLetter | None = None


def _select(query: _Query, reader: DeadLetterReader, *, again: bool) -> _Selection:
    """Count the dead letters that match, before anything is changed."""
    selection = _Selection()
    missing = set(query.conditions.names)
    for dead_letter in query.matching(reader):
        missing.discard(dead_letter.name)
        if dead_letter.state != "open" and not again:
            selection.resolved_before += 1
            continue
        selection.counts[dead_letter.reason] += 1
        selection.topics.add(dead_letter.topic)
        selection.first = selection.first or dead_letter
    if missing:
        raise OperationError(f"no such dead letter: {', '.join(sorted(missing))}; see `auditstream dlq list`")
    if not selection.counts and not selection.resolved_before:
        raise OperationError(_NO_MATCH)
    return selection


def _edited(query: _Query, selection: _Selection, text: bytes, *, new_id: bool) -> EditedRecord:
    if selection.first is None:
        raise OperationError("this dead letter was resolved before: --again sends the edited event")
    if selection.counts.total() != 1:
        raise OperationError(f"--edit is for exactly one dead letter, and {selection.counts.total():,} match: name one")
    return edited_record(text, selection.first, query.settings, decoder=query.decoder, new_id=new_id)


def _only(dead_letters: Iterator[DeadLetter]) -> DeadLetter:
    candidates = list(itertools.islice(dead_letters, _CANDIDATES_SHOWN))
    if not candidates:
        raise OperationError(_NO_MATCH)
    if len(candidates) > 1:
        names = ", ".join(f"{dead_letter.name} of topic {dead_letter.topic_id}" for dead_letter in candidates)
        raise OperationError(f"more than one dead letter matches: {names}; name one, with --topic-id if need be")
    return candidates[0]


def _progress(verb: str, selection: _Selection) -> "tqdm[Any]":
    total = selection.counts.total()
    return tqdm(total=total, unit=" dead letters", unit_scale=True, desc=verb, disable=not sys.stderr.isatty())


def _finish(result: dict[str, int], selection: _Selection, outcome: ResolverOutcome, *, as_json: bool) -> None:
    for reason, count in outcome.failures.most_common():
        click.echo(f"{count:,} not delivered: {reason}", err=True)
    if outcome.failures:
        click.echo("dead letters that were not delivered stay open: repair the cause, then run this again", err=True)
    unresolved, before = result.get("unresolved", 0), selection.resolved_before
    if unresolved:
        click.echo(
            f"{unresolved:,} were sent, but their resolution records were not delivered: the next replay sends them "
            "again, and the sink counts them as duplicates",
            err=True,
        )
    matched = selection.counts.total() + before
    if as_json:
        click.echo(json.dumps({"matched": matched, "resolved_before": before, **result}))
    else:
        verb, count = next(iter(result.items()))
        earlier = f" ({before:,} resolved before)" if before else ""
        click.echo(f"{verb} {count:,} of {matched:,} matching dead letters{earlier}")
    if result["undelivered"] or unresolved:
        sys.exit(1)


def _dead_letters(counts: Counter[str]) -> str:
    noun = "dead letter" if counts.total() == 1 else "dead letters"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
    return f"{counts.total():,} {noun}" + (f" ({reasons})" if counts else "")
