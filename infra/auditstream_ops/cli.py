"""The ``auditstream`` command: finds its subcommands lazily, so that a bare install runs what it can."""

import importlib
import logging
import sys
from dataclasses import dataclass
from typing import Any

import click
from typed_settings.exceptions import TsError

from auditstream_schemas.errors import AuditstreamError
from auditstream_schemas.settings import malformed

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    module: str
    summary: str
    extra: str = ""
    attribute: str = ""


_COMMANDS = {
    "emit": _Entry(module="emit", summary="Send events from an NDJSON file or standard input."),
    "sink": _Entry(module="sink", extra="sink", summary="Move events from Kafka into ClickHouse."),
    "export": _Entry(
        module="export", extra="export", summary="Write events to a file with a signed manifest, or ask for it; verify."
    ),
    "exporter": _Entry(module="exporter", extra="export", summary="Run the exports that were asked for."),
    "admin": _Entry(module="admin", extra="admin", summary="Serve the audit log page and its API."),
    "token": _Entry(module="token", extra="admin", summary="Make, list and revoke tokens of the API."),
    "sql": _Entry(module="sql", extra="export", summary="Ask ClickHouse a question."),
    "grants": _Entry(module="grants", summary="Deploy step: print SQL that makes a ClickHouse role for each part."),
    "topics": _Entry(module="topics", extra="sink", summary="Deploy step: create topics, register the schema."),
    "migrate": _Entry(module="migrate", extra="sink", summary="Deploy step: bring the tables up to date."),
    "dlq": _Entry(module="dlq", extra="sink", summary="Look at refused records, replay or drop them."),
    "verify": _Entry(module="verify", extra="sink", summary="Check that every offset is accounted for."),
    "reconcile": _Entry(module="reconcile", extra="sink", summary="Look for events that are visible more than once."),
    "accept-loss": _Entry(
        module="accept_loss",
        extra="sink",
        attribute="accept_loss",
        summary="Let the sink go on past records that were deleted unread.",
    ),
    "up": _Entry(module="stack", extra="local", summary="Start the local stack: broker, registry, ClickHouse."),
    "down": _Entry(module="stack", extra="local", summary="Stop the local stack."),
    "status": _Entry(module="stack", extra="local", summary="Show how the local stack is."),
    "demo": _Entry(module="demo", extra="all", summary="Show the main job end to end on a stack of its own."),
}


class _LazyGroup(click.Group):
    """Imports a subcommand when it is called; names the extra that a bare install lacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        try:
            module = importlib.import_module(f"auditstream_ops.commands.{entry.module}")
        except ModuleNotFoundError as error:
            if not entry.extra or (error.name or "").startswith("auditstream_"):
                raise
            raise click.ClickException(
                f"`auditstream {cmd_name}` needs {error.name}, which this install lacks: "
                f'pip install "auditstream[{entry.extra}]"'
            ) from error
        except ValueError as error:
            # Options show what the environment says, so a malformed variable is met here.
            raise malformed(error) from error
        command = getattr(module, entry.attribute or cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="auditstream")
@click.option("-v", "--verbose", count=True, help="Say what happens; twice: what the Kafka client says, too.")
def cli(verbose: int) -> None:
    """Audit events from services to ClickHouse: none lost, none shown twice, every offset accounted for.

    Every setting is an option and an environment variable: --topic is AUDITSTREAM_TOPIC.

    \b
    On a laptop:
      auditstream up --detach > .env     start a broker, a registry and ClickHouse
      set -a; . ./.env; set +a
      auditstream migrate && auditstream topics
      auditstream emit events.ndjson
      auditstream sink --until-idle 5
      auditstream export --from 2026-01-01 --to 2026-02-01 -o january.csv.gz
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("auditstream").setLevel(logging.INFO if verbose else logging.WARNING)
    # Libraries repeat themselves with every try while a server is away, librdkafka every 50 ms; we say it once.
    logging.getLogger("auditstream.kafka").setLevel(logging.DEBUG if verbose > 1 else logging.CRITICAL)
    for library in ("clickhouse_connect", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING if verbose > 1 else logging.CRITICAL)


def main() -> None:
    """Run the command line; errors become a sentence on standard error and an exit code.

    Exit codes: 0 done; 1 failed, or something was refused; 2 called wrongly; 130 interrupted.
    """
    try:
        _run()
    except AuditstreamError as error:
        click.echo(f"auditstream: {error}", err=True)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        click.echo("auditstream: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does.
        sys.stderr.close()
        sys.exit(EXIT_FAILED)


def _run() -> None:
    try:
        result: Any = cli.main(standalone_mode=False)
    except click.exceptions.Abort as error:
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TsError as error:
        raise malformed(error) from error
    sys.exit(result if isinstance(result, int) else 0)
