"""A simple consumer, for comparison: no de-duplication, no ledger, offsets committed after the insert.

``python -m tests.benchmarks.naive_process rows|columns RECORDS BATCH_ROWS``. ``rows`` is confluent-kafka's
DeserializingConsumer with its AvroDeserializer, and ``Client.insert`` of rows; ``columns`` reads many messages at
once, decodes them with fastavro, and inserts columns.
"""

import io
import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import clickhouse_connect
import fastavro
from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, DeserializingConsumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer

from auditstream_schemas.settings import load
from auditstream_sink import SinkSettings
from tests.benchmarks.child import peak_bytes, say

_COLUMNS = (
    *("id", "occurred_at", "action", "version", "actor", "target", "payload", "metadata"),
    *("scope", "success", "request", "ingested_at", "kafka_topic", "kafka_partition", "kafka_offset"),
)
_NO_ENTITY: dict[str, Any] = {"id": "", "type": "", "name": None, "attributes": {}}
_NO_REQUEST: dict[str, Any] = {"id": "", "attributes": {}}


def _row(event: Any, message: Any) -> tuple[Any, ...]:
    return (
        *(event[name] for name in _COLUMNS[:8]),
        event["scope"] or _NO_ENTITY,
        event["success"],
        event["request"] or _NO_REQUEST,
        *(int(time.time() * 1000), message.topic(), message.partition(), message.offset()),
    )


def _rows(settings: SinkSettings, client: Client, records: int, batch: int) -> None:
    registry = SchemaRegistryClient({"url": settings.schema_registry_url})
    consumer = DeserializingConsumer({**_consumer(settings), "value.deserializer": AvroDeserializer(registry)})
    consumer.subscribe([settings.topic], on_assign=_assigned)
    rows: list[tuple[Any, ...]] = []
    while records:
        message = consumer.poll(1.0)
        if message is None:
            continue
        rows.append(_row(message.value(), message))
        records -= 1
        if len(rows) == batch or not records:
            client.insert("event_log", rows, column_names=_COLUMNS, database=settings.clickhouse_database)
            consumer.commit(asynchronous=False)
            say("commit", read=len(rows))
            rows = []
    consumer.close()


def _columns(settings: SinkSettings, client: Client, records: int, batch: int) -> None:
    registry = SchemaRegistryClient({"url": settings.schema_registry_url})
    schemas: dict[int, Any] = {}
    consumer = Consumer(_consumer(settings))
    consumer.subscribe([settings.topic], on_assign=_assigned)
    rows: list[tuple[Any, ...]] = []
    while records:
        for message in consumer.consume(10_000, 0.1):
            value: Any = message.value()
            schema_id = int.from_bytes(value[1:5])
            if schema_id not in schemas:
                text = str(registry.get_schema(schema_id).schema_str)
                schemas[schema_id] = fastavro.parse_schema(json.loads(text))
            event = fastavro.schemaless_reader(io.BytesIO(value[5:]), schemas[schema_id], None)
            rows.append(_row(event, message))
            records -= 1
        if len(rows) >= batch or not records:
            columns = [list(column) for column in zip(*rows, strict=True)]
            client.insert(
                *("event_log", columns),
                column_names=_COLUMNS,
                column_oriented=True,
                database=settings.clickhouse_database,
            )
            consumer.commit(asynchronous=False)
            say("commit", read=len(rows))
            rows = []
    consumer.close()


def _assigned(_consumer: Any, partitions: list[Any]) -> None:
    if partitions:
        say("reading")


def _consumer(settings: SinkSettings) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "group.id": settings.group,
        "session.timeout.ms": settings.session_timeout_ms,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }


def main() -> None:
    # DeserializingConsumer says that its interface may change.
    warnings.simplefilter("ignore")
    settings = load(SinkSettings)
    run: Callable[[SinkSettings, Client, int, int], None] = {"rows": _rows, "columns": _columns}[sys.argv[1]]
    client = clickhouse_connect.get_client(dsn=settings.clickhouse_url, autogenerate_session_id=False)
    run(settings, client, int(sys.argv[2]), int(sys.argv[3]))
    say("end", peak=peak_bytes())


if __name__ == "__main__":
    main()
