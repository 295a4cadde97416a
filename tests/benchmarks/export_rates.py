"""Compares the export with ClickHouse's own CSV and with a naive script."""

from pathlib import Path
from statistics import median

from clickhouse_connect.driver.client import Client

from auditstream_schemas.errors import OperationError
from tests.benchmarks.child import Child
from tests.benchmarks.figures import Figures
from tests.benchmarks.growth import grow, take_sample
from tests.benchmarks.plan import BenchPlan
from tests.benchmarks.site import Site, cpu_seconds, site

_PATIENCE = 3600.0
_MILLION = 1_000_000

_LEDGER = """INSERT INTO {database}.ledger
    (topic, topic_id, partition, first_offset, last_offset, read, stored, instance, fencing_time, written_at)
    SELECT kafka_topic, kafka_topic_id, kafka_partition, 0, max(kafka_offset), count(), count(), 'bench', 1, now64(3)
    FROM {database}.event_log GROUP BY ALL"""


def export(plan: BenchPlan, figures: Figures) -> None:
    """Measure rows per second to a CSV file, and the memory of the exporting process, for each size."""
    sizes = [size * _MILLION for size in plan.sizes] if plan.events >= _MILLION else [plan.events]
    with site("local", plan.scratch) as where, where.database() as database, where.client() as client:
        take_sample(plan, where, database, client)
        stored = 0
        for number, rows in enumerate(sizes):
            grow(client, database, stored, rows)
            stored = rows
            _write_ledger(client, database)
            figures.progress(f"{rows:,} rows are stored")
            suffix = f".{rows // _MILLION}" if number else ""
            _measure(plan, where, database, figures, suffix, rows)


def _write_ledger(client: Client, database: str) -> None:
    client.command(f"TRUNCATE TABLE {database}.ledger")
    client.command(_LEDGER.format(database=database))


def _measure(plan: BenchPlan, where: Site, database: str, figures: Figures, suffix: str, rows: int) -> None:
    candidates = ["ours", "straight"] if suffix else ["ours", "straight", "naive"]
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    peaks, cpu, engine_cpu = [], [], []
    path = plan.scratch / "export.csv"
    for turn in range(plan.rounds):
        for name in candidates:
            if turn and name == "naive":
                continue
            engine = cpu_seconds(where.clickhouse_pid)
            took, peak, spent = _run(where, database, name, path, rows)
            seconds[name].append(took)
            if name == "ours":
                peaks.append(peak)
                cpu.append(spent / rows * 1e6)
                engine_cpu.append((cpu_seconds(where.clickhouse_pid) - engine) / rows * 1e6)
                size = path.stat().st_size
            path.unlink(missing_ok=True)
    for name in candidates:
        figures.add(f"export.{name}{suffix}", rows / median(seconds[name]), "rows/s", f"{rows:,} rows")
    for name in candidates[1:]:
        figures.ratio(f"export.ours.of_{name}{suffix}", f"export.ours{suffix}", f"export.{name}{suffix}")
    figures.add(f"export.memory{suffix}", max(peaks) / 1e6, "MB", "resident in the exporting process at most")
    figures.add(f"export.ours.cpu{suffix}", median(cpu), "s/million", "of the exporting process")
    figures.add(f"export.ours.clickhouse_cpu{suffix}", median(engine_cpu), "s/million")
    figures.add(f"export.bytes_per_row{suffix}", size / rows, "bytes", "of CSV")


def _run(where: Site, database: str, name: str, path: Path, rows: int) -> tuple[float, float, float]:
    """Seconds, peak bytes and processor seconds of one candidate."""
    environment = {**where.endpoints.env(), "AUDITSTREAM_CLICKHOUSE_DATABASE": database}
    with Child("tests.benchmarks.export_process", [name, str(path)], environment) as child:
        begun = child.wait_for("reading", 60)
        ended = child.wait_for("end", _PATIENCE)
    if name != "straight" and ended.more["rows"] != rows:
        raise OperationError(f"{name} exported {ended.more['rows']:,} of {rows:,} rows")
    return ended.at - begun.at, float(ended.more["peak"]), ended.cpu - begun.cpu
