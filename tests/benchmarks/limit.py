"""The engine's limit: inserts the containers that the sink would send directly into the table, from files."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from auditstream_schemas.codec import SCHEMA_JSON, split
from auditstream_schemas.errors import OperationError
from auditstream_sink.framing import block, container, header
from tests.benchmarks.site import PARTITIONS, Site, Topic, cpu_seconds

AS_OURS = {"optimize_on_insert": 0}
"""The setting that the sink's own insert has; the engine's default is 1."""

_SETTINGS = {
    # An absent scope or request is a null in the container and a default in the table.
    "input_format_null_as_default": 1,
    "input_format_avro_allow_missing_fields": 1,
    "async_insert": 0,
    "max_partitions_per_insert_block": 0,
}
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Straight:
    """One insert of all files into a table.

    Attributes:
        seconds: From the first request to the last answer.
        clickhouse_cpu: Processor seconds that the engine took.
    """

    seconds: float
    clickhouse_cpu: float


def containers(site: Site, topic: Topic, records: int, *, flush_rows: int, flush_bytes: int) -> list[Path]:
    """Read a topic as the sink does, and write the containers that it would send to files."""
    head = header(json.loads(SCHEMA_JSON))
    consumer = Consumer({"bootstrap.servers": site.endpoints.bootstrap_servers, "group.id": "bench-containers"})
    consumer.assign([TopicPartition(topic.name, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    written: list[Path] = []
    blocks: list[bytes] = []
    size = 0
    last = time.monotonic()
    while records:
        messages = consumer.consume(min(10_000, flush_rows - len(blocks)), 0.1)
        if messages:
            last = time.monotonic()
        elif time.monotonic() - last > _PATIENCE_SECONDS:
            raise OperationError(f"topic {topic.name}: {records} records did not come")
        for message in messages:
            value = message.value()
            partition, offset = message.partition(), message.offset()
            if not isinstance(value, bytes) or partition is None or offset is None:
                raise OperationError(f"topic {topic.name}: {message.error()}")
            blocks.append(block(partition, offset, split(value)[1]))
            size += len(value)
            records -= 1
        if len(blocks) >= flush_rows or size >= flush_bytes or not records:
            path = site.scratch / f"{topic.name}-{len(written)}.avro"
            path.write_bytes(b"".join(container(head, blocks)))
            written.append(path)
            blocks, size = [], 0
    consumer.close()
    return written


def native(site: Site, paths: Sequence[Path]) -> list[Path]:
    """The rows of each container, in their order, as a Native file."""
    written = []
    with site.database() as database, site.client() as client:
        client.command(
            f"CREATE TABLE {database}.rows AS {database}.event_log ENGINE = Memory",
            settings={"allow_experimental_nullable_tuple_type": 1},
        )
        for path in paths:
            _insert(client, f"{database}.rows", path, {})
            to = path.with_suffix(".native")
            with to.open("wb") as file, client.raw_stream(f"SELECT * FROM {database}.rows", fmt="Native") as stream:
                while data := stream.read(1 << 20):
                    file.write(data)
            client.command(f"TRUNCATE TABLE {database}.rows")
            written.append(to)
    return written


def straight(site: Site, database: str, paths: Sequence[Path], events: int, settings: Mapping[str, object]) -> Straight:
    """Insert files into the empty table, one after another over HTTP, as the sink does.

    Raises:
        OperationError: Not all events are there then. Re-sent ones may be there twice, until a merge.
    """
    with site.client() as client:
        cpu, started = cpu_seconds(site.clickhouse_pid), time.monotonic()
        for path in paths:
            _insert(client, f"{database}.event_log", path, settings)
        seconds = time.monotonic() - started
        cpu = cpu_seconds(site.clickhouse_pid) - cpu
        stored = int(client.query(f"SELECT uniqExact(id) FROM {database}.event_log").result_rows[0][0])
    if stored != events:
        raise OperationError(f"{stored} of {events} events in the table")
    return Straight(seconds=seconds, clickhouse_cpu=cpu)


def _insert(client: Client, table: str, path: Path, settings: Mapping[str, object]) -> None:
    fmt = "Native" if path.suffix == ".native" else "Avro"
    client.raw_insert(table, insert_block=path.read_bytes(), fmt=fmt, settings={**_SETTINGS, **settings})
