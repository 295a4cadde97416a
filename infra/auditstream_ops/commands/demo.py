"""``auditstream demo``."""

import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from confluent_kafka import Producer

from auditstream_export import ExportRequest, export_events
from auditstream_local import LocalStack
from auditstream_ops.clickhouse import connect
from auditstream_ops.dead_letters.dead_letter import read_dead_letters
from auditstream_ops.demo_events import NANOSECONDS, broken_records, demo_events
from auditstream_ops.deploy.migrate import migrate
from auditstream_ops.deploy.topics import TopicPlan, create_topics, register_schema
from auditstream_ops.ledger.partition_check import PartitionCheck
from auditstream_ops.ledger.verify import check_topic
from auditstream_producer import AuditProducer, ProducerSettings
from auditstream_schemas.errors import OperationError, QueueFullError
from auditstream_schemas.event import AuditEvent
from auditstream_sink import Sink, SinkSettings
from auditstream_storage import COUNTS

_PARTITIONS = 6
_BROKEN = 25
_IDLE_SECONDS = 2.0

_QUESTIONS = {
    "What happened, and how often did it fail?": (
        "SELECT action, count() AS events, countIf(NOT success) AS failed, uniqExact(actor.id) AS actors "
        "FROM events GROUP BY action ORDER BY events DESC, action LIMIT 8"
    ),
    "Who changed secrets and keys of one organisation in the last 90 days?": (
        "SELECT occurred_at, action, actor.name AS actor, target.name AS target, success FROM events "
        "WHERE scope.id = 'org-acme' AND (action LIKE '%env_var%' OR action LIKE '%key%' OR action LIKE '%token%') "
        "AND occurred_at > now() - INTERVAL 90 DAY ORDER BY occurred_at DESC LIMIT 6"
    ),
    "How many events a month?": (
        "SELECT toStartOfMonth(occurred_at) AS month, count() AS events, bar(events, 0, 2500, 30) AS chart "
        "FROM events GROUP BY month ORDER BY month"
    ),
}


@click.command()
@click.option("--events", default=20_000, show_default=True, help="Events to emit; a tenth of them is sent twice.")
@click.option("--seed", default=1, show_default=True, help="Seed of the random events.")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help="Keep the exported CSV in this directory."
)
def demo(*, events: int, seed: int, output: Path | None) -> None:
    """Show the whole pipeline on a stack of its own, which is removed at the end.

    It starts Kafka, a schema registry and ClickHouse on free ports of this machine. It emits events of every
    action of the catalog, some of them twice, and adds some broken records. The sink moves them into
    ClickHouse. Then the demo prints the ledger of every partition, runs a few queries, and exports a month.

    The last line is the conclusion. Exit codes: 0 the ledger balances; 1 it does not.
    """
    with tempfile.TemporaryDirectory(prefix="auditstream-demo-") as scratch:
        _title("A broker, a schema registry and ClickHouse, on free ports of this machine")
        with LocalStack(Path(scratch)) as stack:
            click.echo(stack.endpoints.env_lines())
            settings = SinkSettings(
                kafka_bootstrap_servers=stack.endpoints.bootstrap_servers,
                schema_registry_url=stack.endpoints.registry_url,
                clickhouse_url=stack.endpoints.clickhouse_url,
                # The local broker assigns partitions to a new group after half of this.
                session_timeout_ms=6000,
            )
            is_balanced = _run(settings, events, seed, output or Path(scratch))
    sys.exit(0 if is_balanced else 1)


def _run(settings: SinkSettings, count: int, seed: int, output: Path) -> bool:
    client = connect(settings)
    migrate(client, settings.clickhouse_database)
    create_topics(settings, TopicPlan(partitions=_PARTITIONS), dead_letter_topic=settings.dead_letters)
    schema_id = register_schema(settings, settings.topic)

    resent = count // 10
    _title(f"Emit: {count:,} events, {resent:,} of them twice, and {_BROKEN} broken records")
    now = time.time_ns()
    sent = list(demo_events(count, now=now, seed=seed))
    _emit(settings, [*sent, *random.Random(seed).sample(sent, resent)])  # noqa: S311 - not a secret
    kinds = _produce_broken(settings, schema_id, now, seed)
    click.echo("broken records: " + ", ".join(f"{number} {kind}" for kind, number in kinds.items()))

    _title("Sink: from Kafka into ClickHouse")
    started = time.monotonic()
    totals = Sink(settings).run(until_idle=_IDLE_SECONDS)
    click.echo(f"{totals.read:,} records in {totals.batches} ledger lines, {time.monotonic() - started:.1f} s")

    _title("Ledger: read = stored + duplicates + conflicts + invalid + expired")
    checks = check_topic(client, settings.clickhouse_database, settings)
    _print_ledger(checks)
    dead_letters = Counter(dead_letter.reason for dead_letter in read_dead_letters(settings))
    click.echo("dead letters: " + ", ".join(f"{number} {reason}" for reason, number in dead_letters.most_common()))

    for question, query in _QUESTIONS.items():
        _title(question)
        click.echo(query)
        database = {"database": settings.clickhouse_database}
        click.echo(client.raw_query(query, fmt="PrettyCompact", settings=database, use_database=False).decode())

    exported = _export(settings, output)
    expected = {"stored": count, "duplicates": resent, "invalid": _BROKEN}
    return _conclude(checks, expected, dead_letters.total(), exported)


def _emit(settings: SinkSettings, events: Sequence[AuditEvent]) -> None:
    producer_settings = ProducerSettings(
        kafka_bootstrap_servers=settings.kafka_bootstrap_servers,
        schema_registry_url=settings.schema_registry_url,
        topic=settings.topic,
    )
    with AuditProducer(producer_settings) as producer:
        for event in events:
            while True:
                try:
                    producer.emit_event(event)
                    break
                except QueueFullError:
                    producer.flush(1)
        if left := producer.flush(60):
            raise OperationError(f"{left} events were not delivered within 60 s")
        stats = producer.stats()
    click.echo(f"emitted {stats.accepted:,} events, {stats.delivered:,} delivered")


def _produce_broken(settings: SinkSettings, schema_id: int, now: int, seed: int) -> Counter[str]:
    kafka = Producer(settings.librdkafka_client("demo"))
    broken = broken_records(schema_id, now=now, seed=seed)
    for record in broken:
        kafka.produce(settings.topic, value=record.value)
    if kafka.flush(30):
        raise OperationError("the broken records were not delivered within 30 s")
    return Counter(record.kind for record in broken)


def _print_ledger(checks: Sequence[PartitionCheck]) -> None:
    click.echo(f"{'partition':>9} {'offsets':>15} " + " ".join(f"{name:>10}" for name in COUNTS))
    for check in checks:
        offsets = f"{check.first_offset}..{check.last_offset}"
        figures = " ".join(f"{getattr(check, name):>10,}" for name in COUNTS)
        click.echo(f"{check.partition:>9} {offsets:>15} {figures}  {'; '.join(check.problems) or 'balances'}")
    sums = " ".join(f"{sum(getattr(check, name) for check in checks):>10,}" for name in COUNTS)
    click.echo(f"{'all':>9} {'':>15} {sums}")


def _export(settings: SinkSettings, output: Path) -> tuple[int, int]:
    """Export the last 30 days; return the number of rows in the file, and in ClickHouse."""
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = end - timedelta(days=30)
    _title(f"Export: {start:%Y-%m-%d} to {end:%Y-%m-%d}, as CSV with a manifest")
    path = output / "audit-log.csv"
    output.mkdir(parents=True, exist_ok=True)
    request = ExportRequest(start=int(start.timestamp()) * NANOSECONDS, end=int(end.timestamp()) * NANOSECONDS)
    result = export_events(settings, request, path, overwrite=True)
    with path.open(encoding="utf-8", newline="") as file:
        for line in itertools.islice(file, 4):
            click.echo(line.rstrip())
    manifest = path.with_name(f"{path.name}.manifest.json")
    click.echo(f"... {result.rows:,} rows; {manifest.name}:")
    click.echo(json.dumps(_shortened(json.loads(manifest.read_text("utf-8"))), indent=2))
    stored = connect(settings).query(
        f"SELECT count() FROM {settings.clickhouse_database}.events "
        "WHERE occurred_at >= {start:DateTime} AND occurred_at < {end:DateTime}",
        parameters={"start": start, "end": end},
    )
    return result.rows, int(stored.result_rows[0][0])


def _shortened(value: Any) -> Any:
    """JSON without its long texts and lists."""
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner) for inner in value] if len(value) < _PARTITIONS else f"... of {len(value)}"
    return f"{value[:35]} ..." if isinstance(value, str) and len(value) > 100 else value


def _conclude(
    checks: Sequence[PartitionCheck], expected: Mapping[str, int], dead_letters: int, exported: tuple[int, int]
) -> bool:
    """Print in one line whether the ledger balances, and agrees with the events that were sent."""
    sums = {name: sum(getattr(check, name) for check in checks) for name in (*COUNTS, "rows")}
    problems = [f"partition {check.partition}: {problem}" for check in checks for problem in check.problems]
    problems += [f"{sums[name]} {name}, not {count}" for name, count in expected.items() if sums[name] != count]
    if dead_letters != sums["invalid"] + sums["conflicts"] + sums["expired"]:
        problems.append(f"{dead_letters} dead letters")
    if exported[0] != exported[1]:
        problems.append(f"{exported[0]} rows exported of {exported[1]}")
    click.echo()
    if problems:
        click.secho(f"The ledger does NOT balance: {'; '.join(problems)}", fg="red", bold=True)
        return False
    click.secho(
        f"The ledger balances: {sums['read']:,} read = {sums['stored']:,} stored + {sums['duplicates']:,} duplicates "
        f"+ {sums['conflicts']:,} conflicts + {sums['invalid']:,} invalid + {sums['expired']:,} expired, "
        f"and {sums['rows']:,} rows are in the event log.",
        fg="green",
        bold=True,
    )
    return True


def _title(text: str) -> None:
    click.secho(f"\n== {text}", bold=True)
