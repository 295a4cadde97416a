"""The ``auditstream`` command group; a subcommand's module is imported when it is called."""

import importlib
import logging
import sys
from typing import Any, NamedTuple

import click
from typed_settings.exceptions import TsError

from auditstream_schemas.errors import AuditstreamError
from auditstream_schemas.extras import install_hint
from auditstream_schemas.settings import malformed

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class _Command(NamedTuple):
    summary: str
    extra: str
    module: str = ""


_COMMANDS = {
    "demo": _Command("Show the whole pipeline on a stack of its own, in 20 seconds.", "all"),
    "up": _Command("Start a local stack: Kafka, schema registry, ClickHouse.", "local", "stack"),
    "status": _Command("Show whether each part of the local stack answers.", "local", "stack"),
    "down": _Command("Stop the local stack.", "local", "stack"),
    "migrate": _Command("Deploy step: create or update the tables in ClickHouse.", "sink", "deploy"),
    "grants": _Command("Deploy step: print SQL that creates a ClickHouse role for each part.", "sink", "deploy"),
    "topics": _Command("Deploy step: create the Kafka topics, register the schema.", "sink", "deploy"),
    "emit": _Command("Send events from an NDJSON file or standard input to Kafka.", "console"),
    "sink": _Command("Move events from Kafka into ClickHouse.", "sink"),
    "sql": _Command("Query the events in ClickHouse, read-only.", "export"),
    "export": _Command("Write events to a file with a signed manifest, or verify it.", "export"),
    "exporter": _Command("Run the exports that were requested.", "export"),
    "admin": _Command("Serve the audit log page and its API.", "admin"),
    "token": _Command("Create, list and revoke API tokens.", "admin"),
    "verify": _Command("Check that the ledger balances: no event lost, none stored twice.", "sink", "ledger"),
    "reconcile": _Command("Look for events that readers see more than once.", "sink", "ledger"),
    "dlq": _Command("List, show, replay or drop dead letters: refused records.", "sink"),
    "accept-loss": _Command("Let the sink read on after records were deleted unread.", "sink", "ledger"),
}


class _LazyGroup(click.Group):
    """Imports a subcommand when it is called, and names the extra that an install lacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        name = cmd_name.replace("-", "_")
        try:
            module = importlib.import_module(f"auditstream_ops.commands.{entry.module or name}")
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("auditstream_"):
                raise
            raise click.ClickException(
                f"`auditstream {cmd_name}` needs {error.name}, which is not installed: {install_hint(entry.extra)}"
            ) from error
        except ValueError as error:
            # Options show the values of environment variables, so a malformed variable fails the import.
            raise malformed(error) from error
        command = getattr(module, name)
        assert isinstance(command, click.Command)  # noqa: S101 - for type checkers
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="auditstream")
@click.option("-v", "--verbose", count=True, help="Log progress to standard error; twice: the Kafka client's log, too.")
def cli(verbose: int) -> None:
    """Audit events from services to ClickHouse: none lost, none shown twice, every offset in the ledger.

    Every setting is an option and an environment variable: --topic is AUDITSTREAM_TOPIC.
    `auditstream COMMAND --help` lists the settings of a command.

    \b
    A first try, on a laptop:
      auditstream up --detach > .env     start Kafka, a schema registry and ClickHouse
      set -a; . ./.env; set +a           give their addresses to the other commands
      auditstream migrate && auditstream topics
      auditstream emit events.ndjson
      auditstream sink --until-idle 5
      auditstream sql "SELECT action, count() FROM events GROUP BY action"
      auditstream export --from 2026-01-01 --to 2026-02-01 -o january.csv.gz
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("auditstream").setLevel(logging.INFO if verbose else logging.WARNING)
    # While a server is away, libraries log every attempt, librdkafka every 50 ms. Our own loggers log it once.
    logging.getLogger("auditstream.kafka").setLevel(logging.DEBUG if verbose > 1 else logging.CRITICAL)
    for library in ("clickhouse_connect", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING if verbose > 1 else logging.CRITICAL)


def run() -> None:
    """Run the command line; errors become a sentence on standard error and an exit code.

    Exit codes: 0 done; 1 failed, or something was refused; 2 called wrongly; 130 interrupted.
    """
    try:
        result: Any = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (AuditstreamError, TsError) as error:
        click.echo(f"auditstream: {malformed(error) if isinstance(error, TsError) else error}", err=True)
        sys.exit(EXIT_FAILED)
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("auditstream: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has ended, as `| head` does.
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    sys.exit(result if isinstance(result, int) else 0)
