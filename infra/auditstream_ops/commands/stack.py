"""``auditstream up``, ``down`` and ``status``: the local stack."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from auditstream_local import (
    AlreadyUpError,
    Ports,
    RunningStack,
    last_error,
    port_is_free,
    running,
    start_detached,
    stop_running,
    supervise,
    wait_until_ready,
)

_STANDARD = Ports(kafka=9092, registry=8081, clickhouse=8123, clickhouse_tcp=9000)
_PROBE_SECONDS = 3.0

_data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".auditstream"),
    show_default=True,
    envvar="AUDITSTREAM_DATA_DIR",
    show_envvar=True,
    help="Directory for the data, logs and state of this stack.",
)


def _port_option(name: str, standard: int, server: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        f"--{name}-port",
        type=click.IntRange(0, 65535),
        help=f"Port of {server} on 127.0.0.1; 0 for any free port.  [default: {standard} if free, else any]",
    )


@click.command()
@_data_dir
@click.option("--detach", is_flag=True, help="Return when every server answers, and leave them running.")
@_port_option("kafka", _STANDARD.kafka, "the Kafka broker")
@_port_option("registry", _STANDARD.registry, "the schema registry")
@_port_option("clickhouse", _STANDARD.clickhouse, "ClickHouse's HTTP interface")
@_port_option("clickhouse-tcp", _STANDARD.clickhouse_tcp, "ClickHouse's native protocol")
def up(*, data_dir: Path, detach: bool, **ports: int | None) -> None:
    """Start a local stack for development: Kafka, schema registry and ClickHouse.

    It needs neither Docker nor Java. The broker is Tansu, the registry is a stand-in of ours, and ClickHouse is
    the real server (from the chDB wheel). All listen on 127.0.0.1. The ClickHouse user `default` needs no password.

    When every server answers, the command prints their addresses as NAME=value lines on standard output, and
    all other text on standard error. So these work, in a shell and for Docker:

    \b
        export $(auditstream up --detach)
        auditstream up --detach > stack.env; docker run --network host --env-file stack.env ...

    In the foreground, Ctrl-C stops all servers. If one server dies, the others are stopped.

    Tansu keeps topics in memory: topics, records and group offsets are gone after `down`. The data of ClickHouse
    and of the registry stays in the data directory. So run this after every `up`:

    \b
        auditstream migrate && auditstream topics
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    if running(data_dir) is not None:
        _announce_running(data_dir)
        return
    chosen = Ports(**{name: _port(ports[f"{name}_port"], port) for name, port in asdict(_STANDARD).items()})
    click.echo("starting Tansu, the registry stand-in and ClickHouse ...", err=True)
    try:
        if detach:
            _announce_started(start_detached(data_dir, chosen), "`auditstream down` stops it")
        else:
            supervise(data_dir, chosen, lambda state: _announce_started(state, "Ctrl-C stops it"))
            click.echo("stopped: the topics are gone, ClickHouse's data stays", err=True)
    except AlreadyUpError:
        _announce_running(data_dir)


@click.command()
@_data_dir
def down(*, data_dir: Path) -> None:
    """Stop the local stack that `up` started with this data directory.

    Topics, records and group offsets are gone, because the broker keeps them in memory. The data of ClickHouse
    and of the registry stays in the data directory.
    """
    stack = running(data_dir)
    if stack is None:
        click.echo(f"no stack is up in {data_dir}", err=True)
        return
    stop_running(stack, data_dir)
    click.echo(f"stopped the stack of {data_dir}: the topics are gone, ClickHouse's data stays", err=True)


@click.command()
@_data_dir
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def status(*, data_dir: Path, as_json: bool) -> None:
    """Show the address of each server of the local stack, and whether it answers.

    Exit codes: 0 every server answers; 1 a server does not, or no stack is up; 2 called wrongly.
    """
    stack = running(data_dir)
    servers = [] if stack is None else stack.endpoints.probe(_PROBE_SECONDS)
    is_healthy = bool(servers) and all(server.fault is None for server in servers)
    if as_json:
        report = {
            "healthy": is_healthy,
            "data_dir": str(data_dir.absolute()),
            "supervisor_pid": None if stack is None else stack.pid,
            "servers": [asdict(server) for server in servers],
            "last_error": last_error(data_dir) if stack is None else "",
        }
        click.echo(json.dumps(report, indent=2))
    elif stack is None:
        click.echo(f"no stack is up in {data_dir}; `auditstream up` starts one")
        if error := last_error(data_dir):
            click.echo(f"the last one ended with: {error}")
    else:
        for server in servers:
            click.echo(f"{server.name:<11} {server.endpoint:<28} {server.fault or 'answers'}")
        click.echo(f"supervisor  process {stack.pid}, {data_dir}")
    if not is_healthy:
        sys.exit(1)


def _port(option: int | None, standard: int) -> int:
    if option is not None:
        return option
    return standard if port_is_free(standard) else 0


def _announce_started(stack: RunningStack, hint: str) -> None:
    click.echo(f"up (process {stack.pid}); {hint}. Then the topics are gone, and ClickHouse's data stays.", err=True)
    click.echo(stack.endpoints.env_lines())


def _announce_running(data_dir: Path) -> None:
    stack = wait_until_ready(data_dir)
    click.echo(f"already up (process {stack.pid}, {data_dir})", err=True)
    click.echo(stack.endpoints.env_lines())
