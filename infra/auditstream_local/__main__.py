"""The supervisor of a detached stack: a process that outlives the command that started it."""

import json
import sys
from pathlib import Path

import click

from auditstream_local.stack import Ports
from auditstream_local.supervision import EXIT_ALREADY_UP, AlreadyUpError, supervise
from auditstream_schemas.errors import AuditstreamError


@click.command()
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--ports", type=json.loads, required=True)
def main(*, data_dir: Path, ports: dict[str, int]) -> None:
    """Run the supervisor until a signal, or until a server ends."""
    try:
        supervise(data_dir, Ports(**ports), lambda _stack: None)
    except AlreadyUpError:
        # Nothing is written: the log belongs to the stack that is up.
        sys.exit(EXIT_ALREADY_UP)
    except AuditstreamError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
