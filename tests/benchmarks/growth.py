"""The size of an event on disk, and the rate of the sink as the table grows."""

import sys
import time
from collections.abc import Sequence
from statistics import median

from clickhouse_connect.driver.client import Client
from tqdm import tqdm
from uuid_utils.compat import uuid7

from tests.benchmarks.consumers import Run, run_sink
from tests.benchmarks.figures import Figures
from tests.benchmarks.load import fill
from tests.benchmarks.plan import BenchPlan
from tests.benchmarks.site import Site, site

_SAMPLE = 200_000
_CHUNK = 1_000_000
_TOP_UP = 400_000
_OLD_IDS = 100_000
_MERGE_SECONDS = 180.0

_COPY = """INSERT INTO {database}.event_log
    WITH
        now64(9) - INTERVAL 360 DAY
            + toIntervalSecond(({chunk} + randCanonical(1)) / {chunks} * 359 * 86400)
            + toIntervalNanosecond(rand64(2) % 1000000000) AS moment,
        hex(toUnixTimestamp64Milli(toDateTime64(moment, 3))) AS clock,
        lpad(hex(rand64(3)), 16, '0') AS chance
    SELECT sample.* REPLACE (
        moment AS occurred_at,
        -- UUIDv7 (RFC 9562): milliseconds, version, chance, variant, chance.
        toUUID(concat(substring(clock, 1, 8), '-', substring(clock, 9, 4), '-7', substring(chance, 1, 3), '-a',
            substring(chance, 4, 3), '-', substring(chance, 5, 12))) AS id,
        rand64(4) AS content_hash,
        toDateTime64(moment, 3) AS ingested_at,
        number * {sample} + kafka_offset AS kafka_offset{replacing})
    FROM {database}.sample CROSS JOIN numbers({copies}) AS copies"""


def disk(plan: BenchPlan, figures: Figures) -> None:
    """Bytes on disk of an event of the demo, projection included, when all parts are merged."""
    records = plan.load(resent=0.0)
    with site("local", plan.scratch) as where, where.topic() as topic, where.database() as database:
        fill(records.bodies, where.producer(topic), topic.schema_id)
        run_sink(where, topic, database, len(records.bodies), events=records.events)
        with where.client() as client:
            client.command(f"OPTIMIZE TABLE {database}.event_log FINAL")
            bytes_on_disk(client, database, figures, "sink.bytes_per_event")
            _columns(client, database, figures)


def growth(plan: BenchPlan, figures: Figures) -> None:
    """The sink, its look-ups, and the cost of FINAL for readers, at so many million rows."""
    with site("local", plan.scratch) as where, where.database() as database, where.client() as client:
        take_sample(plan, where, database, client)
        held = 0
        for size in plan.sizes:
            grow(client, database, held * _CHUNK, size * _CHUNK)
            held = size
            figures.progress(f"{size} million rows")
            runs = [_top_up(plan, where, database) for _round in range(plan.rounds)]
            wait_for_merges(client, database)
            _report(client, database, figures, f"sink.growth.{size}", runs)


def take_sample(plan: BenchPlan, where: Site, database: str, client: Client) -> None:
    """Store events of the demo through the sink; all other rows are made from these."""
    records = plan.load(resent=0.0, events=min(plan.events, _SAMPLE))
    with where.topic() as topic:
        fill(records.bodies, where.producer(topic), topic.schema_id)
        run_sink(where, topic, database, len(records.bodies), events=records.events)
    client.command(f"CREATE TABLE {database}.sample AS {database}.event_log ENGINE = Memory")
    client.command(f"INSERT INTO {database}.sample SELECT * FROM {database}.event_log")
    for table in ("event_log", "ledger"):
        client.command(f"TRUNCATE TABLE {database}.{table}")


def grow(client: Client, database: str, held: int, rows: int, *, replacing: str = "") -> None:
    """Add rows of the whole year, in the order of their time.

    Args:
        client: Connection to the engine.
        database: Database of the table.
        held: Rows that the table has.
        rows: Rows that the table has afterwards: whole millions more, or as many as the sample has.
        replacing: SQL of further replaced columns, each with a comma before it.
    """
    sample = int(client.query(f"SELECT count() FROM {database}.sample").result_rows[0][0])
    chunk_rows = min(_CHUNK, rows - held)
    chunks = (rows - held) // chunk_rows
    for chunk in tqdm(range(chunks), desc=f"growing to {rows:,} rows", disable=not sys.stderr.isatty()):
        client.command(
            _COPY.format(
                database=database,
                chunk=chunk,
                chunks=chunks,
                sample=sample,
                copies=chunk_rows // sample,
                replacing=replacing,
            ),
            settings={"optimize_on_insert": 0, "max_partitions_per_insert_block": 0},
        )
    wait_for_merges(client, database)


def _top_up(plan: BenchPlan, where: Site, database: str) -> Run:
    """Add new events through the sink, a tenth of them sent twice."""
    records = plan.load(events=min(plan.events, _TOP_UP))
    ids: dict[bytes, bytes] = {}
    bodies = [body[:1] + ids.setdefault(body[1:37], str(uuid7()).encode()) + body[37:] for body in records.bodies]
    with where.topic() as topic:
        fill(bodies, where.producer(topic), topic.schema_id)
        return run_sink(where, topic, database, len(bodies), events=records.events)


def _report(client: Client, database: str, figures: Figures, name: str, runs: Sequence[Run]) -> None:
    median_run = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    parts = int(
        client.query(
            "SELECT count() FROM system.parts WHERE database = {database:String} AND table = 'event_log' AND active",
            parameters={"database": database},
        ).result_rows[0][0]
    )
    figures.add(f"{name}.ours", median_run.rate, "records/s", f"{parts} parts")
    steps = {
        name: median(run.steps[name] / run.records * 1e6 for run in runs)
        for name in ("stage", "classify", "insert", "read_back")
    }
    for step, seconds in steps.items():
        figures.add(f"{name}.{step}", seconds, "s/million")
    lookups = steps["classify"] + steps["read_back"]
    figures.add(f"{name}.lookup_share", lookups / steps["insert"], "ratio", "(classify + read_back) / insert")
    figures.add(
        f"{name}.lookup_share.of_all", lookups / (steps["stage"] + steps["insert"]), "ratio", "of stage + insert"
    )
    for query, sql in _queries(database).items():
        seconds = median(_seconds(client, sql) for _round in range(3))
        figures.add(f"{name}.{query}", seconds, "s")
    bytes_on_disk(client, database, figures, f"{name}.bytes_per_event")


def _queries(database: str) -> dict[str, str]:
    """Queries of readers, and a look-up of ids of the whole year."""
    return {
        "final_count": f"SELECT count() FROM {database}.events",
        "final_page": f"SELECT * FROM {database}.events WHERE scope_id = 'org-acme' ORDER BY occurred_at DESC LIMIT 50",
        "scattered": (
            f"SELECT count() FROM {database}.event_log WHERE id_key IN (SELECT id_key FROM "
            f"(SELECT id_key FROM {database}.event_log WHERE cityHash64(id) % 100 = 0 LIMIT {_OLD_IDS}))"
        ),
    }


def _seconds(client: Client, sql: str) -> float:
    started = time.monotonic()
    client.query(sql)
    return time.monotonic() - started


def wait_for_merges(client: Client, database: str) -> None:
    """Wait until no merge is running, three minutes at most."""
    until, quiet = time.monotonic() + _MERGE_SECONDS, 0
    while quiet < 3 and time.monotonic() < until:
        merges = client.query(
            "SELECT count() FROM system.merges WHERE database = {database:String}", parameters={"database": database}
        ).result_rows[0][0]
        quiet = 0 if merges else quiet + 1
        time.sleep(0.5)


def bytes_on_disk(client: Client, database: str, figures: Figures, name: str) -> None:
    of_table = {"database": database}
    rows, size = client.query(
        "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts "
        "WHERE database = {database:String} AND table = 'event_log' AND active",
        parameters=of_table,
    ).result_rows[0]
    (projections,) = client.query(
        "SELECT sum(bytes_on_disk) FROM system.projection_parts "
        "WHERE database = {database:String} AND table = 'event_log' AND active",
        parameters=of_table,
    ).result_rows[0]
    figures.add(name, size / rows, "bytes", f"{rows:,} rows, all parts, projection included")
    figures.add(f"{name}.projection", projections / rows, "bytes", "of these")


def _columns(client: Client, database: str, figures: Figures) -> None:
    """Bytes of each column for one event, in a copy whose parts have a file for each column."""
    copy = f"{database}.columns"
    client.command(f"CREATE TABLE {copy} AS {database}.event_log")
    client.command(f"ALTER TABLE {copy} MODIFY SETTING min_bytes_for_wide_part = 0")
    client.command(
        f"INSERT INTO {copy} SELECT * FROM {database}.event_log", settings={"max_partitions_per_insert_block": 0}
    )
    client.command(f"OPTIMIZE TABLE {copy} FINAL")
    for column, size in client.query(
        "SELECT column, sum(column_data_compressed_bytes) / sum(rows) AS size FROM system.parts_columns "
        "WHERE database = {database:String} AND table = 'columns' AND active "
        "GROUP BY column ORDER BY size DESC LIMIT 8",
        parameters={"database": database},
    ).result_rows:
        figures.add(f"sink.bytes_per_event.column.{column}", size, "bytes", "in parts with a file a column")
