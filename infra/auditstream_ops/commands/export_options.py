"""Options that `auditstream export` and `auditstream export jobs request` share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from auditstream_export.formats import FORMATS, PROFILES
from auditstream_schemas.timestamp import parse_moment

_F = TypeVar("_F", bound=Callable[..., Any])


def event_options(*, for_job: bool) -> Callable[[_F], _F]:
    """Add the options of range, filter and format. A job requires the range, and has no FILE that selects the format.

    The command gets ``start`` and ``end`` in nanoseconds since the epoch, ``format_``, ``profile`` and ``split_rows``,
    and the attributes of an `ExportFilter`.
    """

    def add(command: _F) -> _F:
        limits = (_moment("from", "start", required=for_job), _moment("to", "end", required=for_job))
        text = "csv by default." if for_job else "By default from FILE's suffix, or csv."
        format_option = click.option("--format", "format_", type=click.Choice(FORMATS), help=text)
        for option in reversed((*limits, *_OPTIONS, format_option)):
            command = option(command)
        return command

    return add


def _moment(flag: str, name: str, *, required: bool) -> Callable[[_F], _F]:
    instant = "First instant of the range" if name == "start" else "First instant after the range"
    text = f"{instant}: a date (midnight UTC), or ISO-8601 with a zone."
    return click.option(f"--{flag}", name, required=required, callback=_parsed_moment, metavar="TIME", help=text)


def _parsed_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_moment(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    if not all("=" in value for value in values):
        raise click.BadParameter("write key=value", ctx=ctx, param=param)
    return tuple(tuple(value.split("=", 1)) for value in values)


_GLOB_HELP = "Only these actions; * is any run of characters, dots included, ? is one character. Repeatable."
_METADATA_HELP = "Only events with this metadata. Repeatable."
_PROFILE_HELP = "For csv: exact cells, or cells that no spreadsheet program reads as formulas."
_SPLIT_HELP = "Files of N rows each: FILE-00001, FILE-00002 ..."
_OPTIONS: tuple[Callable[[_F], _F], ...] = (
    click.option("--scope", metavar="ID", help="Only events whose target belongs to this scope."),
    click.option("--action", "actions", metavar="GLOB", multiple=True, help=_GLOB_HELP),
    click.option("--actor", metavar="ID", help="Only events of this actor."),
    click.option("--target", metavar="ID", help="Only events of this target."),
    click.option("--success", type=click.BOOL, metavar="true|false", help="Only actions that succeeded, or failed."),
    click.option("--request", metavar="ID", help="Only events of this request."),
    click.option("--metadata", metavar="KEY=VALUE", multiple=True, callback=_pairs, help=_METADATA_HELP),
    click.option("--text", metavar="WORDS", help="Only events with all these words in the payload."),
    click.option("--profile", type=click.Choice(PROFILES), default="raw", show_default=True, help=_PROFILE_HELP),
    click.option("--split-rows", type=click.IntRange(min=1), metavar="N", help=_SPLIT_HELP),
)
