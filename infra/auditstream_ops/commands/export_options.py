"""Options that say which events an export is to hold."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from auditstream_schemas.timestamp import parse_moment

_F = TypeVar("_F", bound=Callable[..., Any])


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a limit of a range, nanoseconds since the epoch."""
    if value is None:
        return None
    try:
        return parse_moment(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None


def filter_options(command: _F) -> _F:
    """Add the options that make an `ExportFilter`, by the names of its attributes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found = [value.partition("=") for value in values]
    if not all(equals for _, equals, _ in found):
        raise click.BadParameter("write key=value", ctx=ctx, param=param)
    return tuple((key, value) for key, _, value in found)


_OPTIONS: tuple[Callable[[_F], _F], ...] = (
    click.option("--scope", metavar="ID", help="Only events whose target belongs to this account."),
    click.option(
        "--action",
        "actions",
        metavar="GLOB",
        multiple=True,
        help="Only these actions; * is any run of characters, dots included, ? is one. May be given again.",
    ),
    click.option("--actor", metavar="ID", help="Only what this actor did."),
    click.option("--target", metavar="ID", help="Only what was done to this target."),
    click.option("--success", type=click.BOOL, metavar="true|false", help="Only what succeeded, or what did not."),
    click.option("--request", metavar="ID", help="Only what this request caused."),
    click.option(
        "--metadata",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_pairs,
        help="Only with this in the metadata; may be given again.",
    ),
    click.option("--text", metavar="WORDS", help="Only with all these words in the payload."),
)
