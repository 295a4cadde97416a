"""Functions for tests that run the whole pipeline on a tenant of a real stack."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence

from confluent_kafka import Producer

from auditstream_local.server import with_lifeline
from auditstream_ops.clickhouse import connect
from auditstream_ops.dead_letters.dead_letter import DeadLetter, read_dead_letters
from auditstream_ops.ledger.partition_check import PartitionCheck
from auditstream_ops.ledger.verify import check_topic
from auditstream_schemas.codec import SCHEMA_JSON, encode
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.registry import RegistryClient
from auditstream_sink import Sink, SinkSettings
from auditstream_storage import LedgerTotals
from tests.support.fix_stack import Tenant, credentials

IDLE_SECONDS = 1.0
_ROLES = {"sink": "sink", "exporter": "exporter", "admin": "page", "migrate": "migrator"}


def command_credentials(command: str) -> dict[str, str]:
    """The variables with the ClickHouse user that has the rights of a command."""
    return credentials(_ROLES.get(command, "operator"))


def sink_settings(tenant: Tenant, **changes: object) -> SinkSettings:
    values: dict[str, object] = {
        "kafka_bootstrap_servers": tenant.endpoints.bootstrap_servers,
        "schema_registry_url": tenant.endpoints.registry_url,
        **vars(tenant.clickhouse("sink")),
        "topic": tenant.topic,
        "group": tenant.group,
        "session_timeout_ms": int(tenant.env["AUDITSTREAM_SESSION_TIMEOUT_MS"]),
        "flush_seconds": 0.2,
    }
    return SinkSettings(**{**values, **changes})  # type: ignore[arg-type]


def schema_id(tenant: Tenant) -> int:
    return RegistryClient(tenant.endpoints.registry_url).schema_id(f"{tenant.topic}-value", SCHEMA_JSON)


def put(tenant: Tenant, values: Iterable[bytes | None], *, key: str | None = None, partition: int = -1) -> None:
    """Put raw records on the tenant's topic."""
    producer = Producer({"bootstrap.servers": tenant.endpoints.bootstrap_servers, "enable.idempotence": True})
    for value in values:
        producer.produce(tenant.topic, value=value, key=key, partition=partition)
        producer.poll(0)
    assert producer.flush(30) == 0


def put_events(tenant: Tenant, events: Sequence[AuditEvent], *, partition: int = -1) -> None:
    """Put events on the tenant's topic as the SDK does, keyed by their id."""
    writer = schema_id(tenant)
    producer = Producer({"bootstrap.servers": tenant.endpoints.bootstrap_servers, "enable.idempotence": True})
    for event in events:
        producer.produce(tenant.topic, value=encode(event, writer), key=str(event.id), partition=partition)
        producer.poll(0)
    assert producer.flush(30) == 0


def run_sink(tenant: Tenant, **changes: object) -> LedgerTotals:
    return Sink(sink_settings(tenant, **changes)).run(until_idle=IDLE_SECONDS)


def partition_checks(tenant: Tenant) -> list[PartitionCheck]:
    """Check the ledger of each partition; a record that is not in the ledger yet is a fault."""
    settings = sink_settings(tenant)
    return check_topic(connect(tenant.clickhouse("operator")), tenant.database, settings)


def assert_balanced(tenant: Tenant) -> None:
    problems = {check.partition: check.problems for check in partition_checks(tenant) if check.problems}
    assert not problems, problems


def dead_letters(tenant: Tenant) -> list[DeadLetter]:
    return list(read_dead_letters(sink_settings(tenant)))


def count(tenant: Tenant, table: str = "events") -> int:
    client = tenant.administrator()
    return int(client.query(f"SELECT count() FROM {tenant.database}.{table}").result_rows[0][0])


def start_sink(tenant: Tenant, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a sink in a process of its own, which dies with this process, even if it is stopped by SIGSTOP."""
    return start_command(tenant, "sink", "--json", *arguments, **environment)


def start_command(tenant: Tenant, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start an `auditstream` command in a process of its own, which dies with this process, as above."""
    lifeline = with_lifeline()
    return subprocess.Popen(
        [*lifeline, sys.executable, "-m", "auditstream_ops", *arguments],
        env={**os.environ, **tenant.env, **environment, **command_credentials(arguments[0])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(
    process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM, *, timeout: float = 60
) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err
