"""``auditstream up``, ``down`` and ``status``: the local stack."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from auditstream_local.endpoints import (
    CLICKHOUSE,
    KAFKA,
    REGISTRY,
    Endpoints,
    clickhouse_fault,
    kafka_fault,
    registry_fault,
)
from auditstream_local.server import port_is_free
from auditstream_local.stack import Ports
from auditstream_local.supervision import (
    AlreadyUpError,
    RunningStack,
    last_error,
    running,
    start_detached,
    stop_running,
    supervise,
    wait_until_ready,
)

_STANDARD = Ports(kafka=9092, registry=8081, clickhouse=8123, clickhouse_tcp=9000)
_PROBE_SECONDS = 3.0

_F = TypeVar("_F", bound=Callable[..., object])

_data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".auditstream"),
    show_default=True,
    envvar="AUDITSTREAM_DATA_DIR",
    show_envvar=True,
    help="Directory of this stack's data, logs and state.",
)


def _port_option(name: str, standard: int, what: str) -> Callable[[_F], _F]:
    return click.option(
        f"--{name}-port",
        type=click.IntRange(0, 65535),
        help=f"Port of {what} on 127.0.0.1; 0 for any free one.  [default: {standard} if free, else any]",
    )


@click.command()
@_data_dir
@click.option("--detach", is_flag=True, help="Return once every server answers, and leave them running.")
@_port_option("kafka", _STANDARD.kafka, "the Kafka broker")
@_port_option("registry", _STANDARD.registry, "the schema registry")
@_port_option("clickhouse", _STANDARD.clickhouse, "ClickHouse's HTTP interface")
@_port_option("clickhouse-tcp", _STANDARD.clickhouse_tcp, "ClickHouse's native protocol")
def up(
    *,
    data_dir: Path,
    detach: bool,
    kafka_port: int | None,
    registry_port: int | None,
    clickhouse_port: int | None,
    clickhouse_tcp_port: int | None,
) -> None:
    """Start a local stack: Kafka, schema registry and ClickHouse, for development.

    It needs neither Docker nor Java: the broker is Tansu, the registry a stand-in of ours, and ClickHouse
    the real server (of the chDB wheel). All listen on 127.0.0.1.

    When every server answers, their addresses go to standard output as NAME=value lines, all other words to
    standard error. So these work in a shell, and for Docker:

    \b
        export $(auditstream up --detach)
        auditstream up --detach > stack.env; docker run --network host --env-file stack.env ...

    In the foreground Ctrl-C stops everything. If one server dies, the rest is stopped.

    Tansu keeps its topics in memory: topics, records and group offsets are gone after `down`, while what
    ClickHouse and the registry hold stays in the data directory. So after every `up` comes

    \b
        auditstream topics && auditstream migrate
    """  # noqa: D301 - click wants the very character, as its mark of lines not to be wrapped
    if running(data_dir) is not None:
        _announce_again(data_dir)
        return
    ports = Ports(
        kafka=_chosen(kafka_port, _STANDARD.kafka),
        registry=_chosen(registry_port, _STANDARD.registry),
        clickhouse=_chosen(clickhouse_port, _STANDARD.clickhouse),
        clickhouse_tcp=_chosen(clickhouse_tcp_port, _STANDARD.clickhouse_tcp),
    )
    click.echo("starting Tansu, the registry stand-in and ClickHouse ...", err=True)
    try:
        if detach:
            _announce(start_detached(data_dir, ports), "`auditstream down` stops it")
        else:
            supervise(data_dir, ports, lambda state: _announce(state, "Ctrl-C stops it"))
            click.echo("stopped: the topics are gone, ClickHouse's data stays", err=True)
    except AlreadyUpError:
        _announce_again(data_dir)


@click.command()
@_data_dir
def down(*, data_dir: Path) -> None:
    """Stop the local stack that `up` started in this data directory.

    Topics, records and group offsets are gone with it (the broker keeps them in memory); what ClickHouse and
    the registry hold stays in the data directory.
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
    """Show each part of the local stack, where it is reached, and whether it answers.

    The exit code is 1 unless every part answers.
    """
    stack = running(data_dir)
    parts = [] if stack is None else _parts(stack.endpoints)
    well = bool(parts) and all(part["fault"] is None for part in parts)
    if as_json:
        found = {
            "well": well,
            "data_dir": str(data_dir.absolute()),
            "supervisor_pid": None if stack is None else stack.pid,
            "parts": parts,
            "last_error": last_error(data_dir) if stack is None else "",
        }
        click.echo(json.dumps(found, indent=2))
    elif stack is None:
        click.echo(f"no stack is up in {data_dir}; `auditstream up` starts one")
        if message := last_error(data_dir):
            click.echo(f"the last one ended with: {message}")
    else:
        for part in parts:
            click.echo(f"{part['name']:<11} {part['endpoint']:<28} {part['fault'] or 'answers'}")
        click.echo(f"supervisor  process {stack.pid}, {data_dir}")
    if not well:
        sys.exit(1)


def _chosen(given: int | None, standard: int) -> int:
    if given is not None:
        return given
    return standard if port_is_free(standard) else 0


def _announce(stack: RunningStack, end: str) -> None:
    click.echo(
        f"up (process {stack.pid}); {end}. Topics live in memory and are gone then, ClickHouse's data stays.",
        err=True,
    )
    click.echo(stack.endpoints.env_lines())


def _announce_again(data_dir: Path) -> None:
    stack = wait_until_ready(data_dir)
    click.echo(f"already up (process {stack.pid}, {data_dir})", err=True)
    click.echo(stack.endpoints.env_lines())


def _parts(endpoints: Endpoints) -> list[dict[str, str | None]]:
    probes = (
        (KAFKA, endpoints.bootstrap_servers, kafka_fault),
        (REGISTRY, endpoints.registry_url, registry_fault),
        (CLICKHOUSE, endpoints.clickhouse_url, clickhouse_fault),
    )
    return [
        {"name": name, "endpoint": endpoint, "fault": fault(endpoint, _PROBE_SECONDS)}
        for name, endpoint, fault in probes
    ]
