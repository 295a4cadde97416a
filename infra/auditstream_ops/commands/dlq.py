"""``auditstream dlq``."""

import functools
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

from auditstream_ops.dead_letters.content import RecordDecoder, event_json
from auditstream_ops.dead_letters.dead_letter import DeadLetter, DeadLetterReader
from auditstream_ops.dead_letters.filter import LetterFilter, parse_name
from auditstream_ops.dead_letters.resolver import Resolver, ResolverOutcome, edited_event, operator
from auditstream_ops.dead_letters.view import json_line, json_whole, line, page
from auditstream_schemas.errors import OperationError
from auditstream_schemas.registry import RegistryClient
from auditstream_schemas.settings import loaders
from auditstream_schemas.timestamp import parse_moment
from auditstream_sink import DeadLetterSettings

_Decorator = Callable[[Callable[..., None]], Callable[..., None]]

_EXIT_FAILED = 1
_SHOWN_CANDIDATES = 5


@click.group()
def dlq() -> None:
    """Look at the records that could not be stored, and close them: send them again, or say why not.

    Each is kept as it came, with the reason, on the dead-letter topic.
    """


def _parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(map(parse, value))
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=param) from None

    return callback


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the conditions that all subcommands share; they arrive as keyword arguments."""
    decorators: tuple[_Decorator, ...] = (
        click.argument("names", nargs=-1, metavar="[LETTER]...", callback=_parsed(parse_name)),
        click.option("--reason", "reasons", metavar="WORD", multiple=True, help="Only this reason; may be repeated."),
        click.option(
            "--from",
            "start",
            metavar="TIME",
            callback=_parsed(parse_moment),
            help="Only letters written at or after: a date (its midnight in UTC), or ISO-8601 with a zone.",
        ),
        click.option(
            "--to", "end", metavar="TIME", callback=_parsed(parse_moment), help="Only letters written before; likewise."
        ),
        click.option(
            "--action",
            "actions",
            metavar="GLOB",
            multiple=True,
            help="Only records of this action, * and ? as in export; what cannot be decoded has none. May be repeated.",
        ),
        click.option("--topic-id", metavar="UUID", help="Only from the topic of this id."),
        click.option("--partition", type=click.IntRange(min=0), help="Only from this partition of the event topic."),
        click.option("--offset", type=click.IntRange(min=0), help="Only from this offset of the event topic."),
    )
    return functools.reduce(_decorated, reversed(decorators), command)


def _decorated(command: Callable[..., None], decorate: _Decorator) -> Callable[..., None]:
    return decorate(command)


@dlq.command("list")
@_filters
@click.option(
    "--state", type=click.Choice(["open", "replayed", "dropped"]), help="Only letters to which this was done."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a letter.")
@click_options(DeadLetterSettings, loaders(), argname="settings", show_envvars_in_help=True)
def list_letters(
    settings: DeadLetterSettings, *, state: str | None, limit: int | None, as_json: bool, **conditions: Any
) -> None:
    """List refused records: when, from where, why, and what became of them.

    LETTER is TOPIC[PARTITION]@OFFSET, as printed here.

    \b
    Examples:
      auditstream dlq list --state open
      auditstream dlq list --reason payload --action 'project.*' --from 2026-01-31
      auditstream dlq list --json | jq -r 'select(.reason == "conflict") | .error'
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    choice, decoder = LetterFilter(**conditions), _decoder(settings)
    counts: Counter[str] = Counter()
    with DeadLetterReader(settings) as reader:
        for letter in reader.letters():
            if (state is not None and letter.state != state) or not choice.matches(letter, decoder):
                continue
            counts[letter.reason] += 1
            click.echo(json_line(letter) if as_json else line(letter))
            if counts.total() == limit:
                break
    if not as_json:
        first = "the first " if counts.total() == limit else ""
        found = f": {_described(counts)}" if counts else ""
        click.echo(f"{first}{counts.total():,} refused records{found}", err=True)


@dlq.command()
@_filters
@click.option("--raw", "form", flag_value="raw", help="Write the record's bytes, and nothing else.")
@click.option("--event", "form", flag_value="event", help="Write the event's JSON, ready for replay --edit.")
@click.option("--json", "form", flag_value="json", help="One JSON object.")
@click_options(DeadLetterSettings, loaders(), argname="settings", show_envvars_in_help=True)
def show(settings: DeadLetterSettings, *, form: str | None, **conditions: Any) -> None:
    """Show everything about one letter: where it came from, why it was refused, and what is in it.

    A record that can be decoded is shown as the JSON of an event, another one as a hexdump. Exit code 1 if
    not exactly one letter is meant.

    \b
    Examples:
      auditstream dlq show 'audit.events[3]@1729'
      auditstream dlq show 'audit.events[3]@1729' --event > event.json
      auditstream dlq show 'audit.events[3]@1729' --raw | xxd
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    choice, decoder = LetterFilter(**conditions), _decoder(settings)
    with DeadLetterReader(settings) as reader:
        letter = _only(letter for letter in reader.letters() if choice.matches(letter, decoder))
    if form == "raw":
        sys.stdout.buffer.write(letter.value)
    elif form == "event":
        record, fault = decoder.described(letter)
        if record is None:
            raise OperationError(f"{letter.name} cannot be decoded: {fault}; --raw writes its bytes")
        click.echo(event_json(record))
    elif form == "json":
        click.echo(json_whole(letter, decoder))
    else:
        for text in page(letter, decoder):
            click.echo(text)


@dlq.command()
@_filters
@click.option(
    "--edit",
    "edit",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Send the event in this file (JSON, as show --event writes it) instead; for exactly one letter.",
)
@click.option("--new-id", is_flag=True, help="With --edit: the event need not have the letter's id.")
@click.option("--again", is_flag=True, help="Also letters that were replayed or dropped before.")
@click.option("--why", default="", metavar="TEXT", help="A reason, for those who read the list later.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click_options(DeadLetterSettings, loaders(), argname="settings", show_envvars_in_help=True)
def replay(
    settings: DeadLetterSettings,
    *,
    edit: Path | None,
    new_id: bool,
    again: bool,
    why: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **conditions: Any,
) -> None:
    """Send refused records again to the topic they came from, after what was wrong has been put right.

    The bytes, the key and the headers are those of the original; a header auditstream.replayed-from is
    added. The sink judges them anew: what it refuses again becomes a letter of its own. A marker on the
    dead-letter topic says that a letter was replayed, and the next replay leaves it out.

    --edit sends an event put right by hand: checked and encoded as the SDK does, under the letter's id.

    Exit codes: 0 all that matched have been sent, now or before; 1 something was not delivered, no letter
    matched, or the answer was no; 2 called wrongly.

    \b
    Examples:
      auditstream dlq replay --reason unknown_schema --dry-run
      auditstream dlq replay --reason unknown_schema --from 2026-01-31 --yes
      auditstream dlq replay 'audit.events[3]@1729' --edit event.json
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    if new_id and edit is None:
        raise click.UsageError("--new-id is for --edit")
    _require_answer(yes=yes or dry_run)
    choice, decoder = LetterFilter(**conditions), _decoder(settings)
    with DeadLetterReader(settings) as reader:
        tally = _tally(reader, choice, decoder, again=again)
        edited = None
        if edit is not None:
            if tally.first is None or tally.meant.total() != 1:
                raise OperationError(f"--edit is for exactly one letter, and {_found(tally)}: name one")
            edited = edited_event(edit.read_bytes(), tally.first, settings, decoder=decoder, new_id=new_id)
        closer = Resolver(settings, by=operator(), why=why)
        closer.require_topics(tally.topics)
        if dry_run:
            click.echo(f"would replay {_letters(tally.meant)}", err=True)
        elif tally.meant:
            _ask("Replay", tally, yes=yes)
        outcome = ResolverOutcome()
        if tally.meant and not dry_run:
            with _progress("replay", tally) as bar:
                chosen = _meant(reader, choice, decoder, again=again)
                outcome = closer.replay(chosen, progress=bar.update, edited=edited)
    result = {
        **_counts(tally),
        "replayed": outcome.sent,
        "undelivered": 0 if dry_run else tally.meant.total() - outcome.sent,
        "unmarked": outcome.sent - outcome.closed,
    }
    _finish("replayed", result, outcome, as_json=as_json)


@dlq.command()
@_filters
@click.option("--why", required=True, metavar="TEXT", help="The reason, for those who read the list later.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click_options(DeadLetterSettings, loaders(), argname="settings", show_envvars_in_help=True)
def drop(settings: DeadLetterSettings, *, why: str, yes: bool, as_json: bool, **conditions: Any) -> None:
    """Close letters that are not to be replayed, with a reason.

    Nothing is deleted: the letter is evidence, and stays until the topic's retention ends. A marker on the
    dead-letter topic says who dropped it, when and why.

    Exit codes: 0 all that matched are closed, now or before; 1 something was not delivered, no letter
    matched, or the answer was no; 2 called wrongly.

    \b
    Examples:
      auditstream dlq drop 'audit.events[3]@1729' --why 'a load test of ours'
      auditstream dlq drop --reason wire_format --to 2026-02-01 --why 'not our records' --yes
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    if not why.strip():
        raise click.UsageError("--why is empty: say why these records need not be stored")
    _require_answer(yes=yes)
    choice, decoder = LetterFilter(**conditions), _decoder(settings)
    with DeadLetterReader(settings) as reader:
        tally = _tally(reader, choice, decoder, again=False)
        closer = Resolver(settings, by=operator(), why=why)
        closer.require_topics(())
        outcome = ResolverOutcome()
        if tally.meant:
            _ask("Drop", tally, yes=yes)
            with _progress("drop", tally) as bar:
                outcome = closer.drop(_meant(reader, choice, decoder, again=False), progress=bar.update)
    undelivered = tally.meant.total() - outcome.closed
    _finish(
        "dropped", {**_counts(tally), "dropped": outcome.closed, "undelivered": undelivered}, outcome, as_json=as_json
    )


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What a filter found.

    Attributes:
        meant: Letters to be closed, by reason.
        closed: How many more were closed before.
        topics: Where the letters to be closed came from.
        first: The first of them.
    """

    meant: Counter[str] = field(default_factory=Counter)
    closed: int = 0
    topics: set[str] = field(default_factory=set)
    first: DeadLetter | None = None


def _tally(reader: DeadLetterReader, choice: LetterFilter, decoder: RecordDecoder, *, again: bool) -> _Tally:
    tally = _Tally()
    missing = set(choice.names)
    for letter in reader.letters():
        if not choice.matches(letter, decoder):
            continue
        missing.discard(letter.name)
        if letter.state != "open" and not again:
            tally.closed += 1
            continue
        tally.meant[letter.reason] += 1
        tally.topics.add(letter.topic)
        tally.first = tally.first or letter
    if missing:
        raise OperationError(f"no such letter: {', '.join(sorted(missing))}; see `auditstream dlq list`")
    if not tally.meant and not tally.closed:
        raise OperationError("no letter matches; see `auditstream dlq list`")
    return tally


def _meant(
    reader: DeadLetterReader, choice: LetterFilter, decoder: RecordDecoder, *, again: bool
) -> Iterator[DeadLetter]:
    return (
        letter for letter in reader.letters() if (again or letter.state == "open") and choice.matches(letter, decoder)
    )


def _only(letters: Iterator[DeadLetter]) -> DeadLetter:
    found = [letter for letter, _ in zip(letters, range(_SHOWN_CANDIDATES), strict=False)]
    if not found:
        raise OperationError("no letter matches; see `auditstream dlq list`")
    if len(found) > 1:
        names = ", ".join(f"{letter.name} of topic {letter.topic_id}" for letter in found)
        raise OperationError(f"more than one letter matches: {names}; name one, with --topic-id if need be")
    return found[0]


def _require_answer(*, yes: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("standard input is no terminal to ask on: add --yes")


def _ask(verb: str, tally: _Tally, *, yes: bool) -> None:
    if not yes and not click.confirm(f"{verb} {_letters(tally.meant)}?", err=True):
        click.echo("nothing was done", err=True)
        sys.exit(_EXIT_FAILED)


def _progress(what: str, tally: _Tally) -> "tqdm[Any]":
    return tqdm(total=tally.meant.total(), unit=" letters", unit_scale=True, desc=what, disable=not sys.stderr.isatty())


def _counts(tally: _Tally) -> dict[str, int]:
    return {"matched": tally.meant.total() + tally.closed, "closed_before": tally.closed}


def _finish(verb: str, result: dict[str, int], outcome: ResolverOutcome, *, as_json: bool) -> None:
    for reason, count in outcome.failures.most_common():
        click.echo(f"{count:,} not delivered: {reason}", err=True)
    if outcome.failures:
        click.echo("what was not delivered stays open: run it again when that is put right", err=True)
    if result.get("unmarked"):
        click.echo(
            f"{result['unmarked']:,} were sent, but are not marked as replayed: the next replay sends them again, "
            "which the sink takes for second deliveries",
            err=True,
        )
    if as_json:
        click.echo(json.dumps(result))
    else:
        before = f" ({result['closed_before']:,} closed before)" if result["closed_before"] else ""
        click.echo(f"{verb} {result[verb]:,} of {result['matched']:,} matching letters{before}")
    if result["undelivered"] or result.get("unmarked"):
        sys.exit(_EXIT_FAILED)


def _found(tally: _Tally) -> str:
    if not tally.meant:
        return "the one that matches was closed before (--again sends it)"
    return f"{tally.meant.total():,} match"


def _letters(counts: Counter[str]) -> str:
    noun = "letter" if counts.total() == 1 else "letters"
    return f"{counts.total():,} {noun}" + (f" ({_described(counts)})" if counts else "")


def _described(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())


def _decoder(settings: DeadLetterSettings) -> RecordDecoder:
    return RecordDecoder(RegistryClient(settings.schema_registry_url, ca_file=settings.schema_registry_ca_file))
