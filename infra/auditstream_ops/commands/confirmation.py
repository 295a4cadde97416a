"""The question before a command changes something, and the name of the operator for its record."""

import getpass
import os
import socket
import sys

import click


def require_terminal(*, yes: bool) -> None:
    """Raise click.UsageError if there is no terminal to ask on, and the operator did not agree with ``--yes``."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("standard input is not a terminal to ask on: add --yes")


def confirm(question: str, *, yes: bool) -> None:
    """Ask; ends the process with exit code 1 if the answer is no."""
    if not yes and not click.confirm(question, err=True):
        click.echo("nothing was done", err=True)
        sys.exit(1)


def operator() -> str:
    """The user who runs the command: ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user id that its password file does not list.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
