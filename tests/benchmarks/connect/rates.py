"""ClickHouse's own Kafka Connect sink, built from a checkout of its source, on the same events as JSON."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

from auditstream_local.server import with_lifeline
from auditstream_schemas.codec import decode_record
from auditstream_schemas.errors import OperationError
from tests.benchmarks.consumers import run_sink
from tests.benchmarks.figures import Figures
from tests.benchmarks.load import fill, fill_with
from tests.benchmarks.plan import BenchPlan
from tests.benchmarks.site import Site, Topic, cpu_seconds, site

_HERE = Path(__file__).resolve().parent
_EVENTS = 300_000
"""It takes a minute for these."""

_TASKS = 2
_BUILD_SECONDS = 900
_PATIENCE_SECONDS = 300.0
_POLL_SECONDS = 0.1

_VERSION = """package com.clickhouse.kafka.connect.sink;

public final class Version {
    public static final String ARTIFACT_VERSION = "for-benchmarks";
}
"""
"""What its Gradle build generates."""

_MODES = {
    # The usual way, a map of every record; and the quickest, JSON handed on as it came.
    "connect": ("org.apache.kafka.connect.json.JsonConverter", ""),
    "connect.text": (
        "org.apache.kafka.connect.storage.StringConverter",
        "customInsertFormat=true\ninsertFormat=JSON\n",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    at: float
    rows: int
    cpu: float
    clickhouse_cpu: float


def connect(plan: BenchPlan, figures: Figures) -> None:
    """The connector in a standalone worker with two tasks, and our sink on the same broker, no id sent twice."""
    if plan.connector is None:
        raise OperationError("connect needs --connector DIR, a checkout of the ClickHouse Kafka Connect sink")
    jars = _built(plan.connector, plan.events_directory.parent / "connect")
    records = plan.load(resent=0.0, events=min(plan.events, _EVENTS))
    with site("kafka", plan.scratch) as where:
        with where.topic() as topic, where.database() as database:
            fill(records.bodies, where.producer(topic), topic.schema_id)
            run = run_sink(where, topic, database, records.events, events=records.events, flush_rows=plan.flush_rows)
        figures.add("sink.connect.ours", run.rate, "records/s", "our sink on the same events, as Avro")
        with where.topic() as topic:
            fill_with(((body[1:37], _json(body)) for body in records.bodies), where.producer(topic))
            for name in _MODES:
                with where.database() as database, where.client() as client:
                    samples = _watched(where, topic, database, client, jars, name, records.events)
                _enter(figures, name, samples)
        figures.ratio("sink.ours.of_connect", "sink.connect.ours", "sink.connect")


def _enter(figures: Figures, name: str, samples: list[_Sample]) -> None:
    first, last = samples[0], samples[-1]
    rows = last.rows - first.rows
    note = f"rows visible from the first batch to the last, {rows:,}"
    figures.add(f"sink.{name}", rows / (last.at - first.at), "records/s", note)
    figures.add(f"sink.{name}.cpu", (last.cpu - first.cpu) / rows * 1e6, "s/million", "of its process")
    figures.add(f"sink.{name}.clickhouse_cpu", (last.clickhouse_cpu - first.clickhouse_cpu) / rows * 1e6, "s/million")


def _watched(
    where: Site, topic: Topic, database: str, client: Client, jars: Path, name: str, events: int
) -> list[_Sample]:
    """Look again and again how many rows are there, from the first batch until all are."""
    samples: list[_Sample] = []
    with _worker(where, topic, database, jars, name) as worker:
        until = time.monotonic() + _PATIENCE_SECONDS
        while not samples or samples[-1].rows < events:
            rows = int(client.query(f"SELECT count() FROM {database}.event_log").result_rows[0][0])
            if rows and (not samples or rows > samples[-1].rows):
                samples.append(
                    _Sample(
                        at=time.monotonic(),
                        rows=rows,
                        cpu=cpu_seconds(worker.pid),
                        clickhouse_cpu=cpu_seconds(where.clickhouse_pid),
                    )
                )
            if worker.poll() is not None or time.monotonic() > until:
                raise OperationError(f"the connector stored {rows} of {events} events; its log is {_log(where)}")
            time.sleep(_POLL_SECONDS)
    if len(samples) < 2:
        raise OperationError("the connector stored all in one batch: give it more events")
    return samples


@contextmanager
def _worker(where: Site, topic: Topic, database: str, jars: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    converter, extra = _MODES[name]
    host, _, port = where.endpoints.clickhouse_url.rpartition("/")[2].partition(":")
    worker, sink = where.scratch / "worker.properties", where.scratch / "connector.properties"
    worker.write_text(
        f"bootstrap.servers={where.endpoints.bootstrap_servers}\n"
        "key.converter=org.apache.kafka.connect.storage.StringConverter\n"
        f"value.converter={converter}\n"
        "value.converter.schemas.enable=false\n"
        f"offset.storage.file.filename={where.scratch / 'offsets'}\n"
        "listeners=http://127.0.0.1:0\n"
        # As its own guide to tuning has it: 500 records at a time would be hopeless.
        "consumer.max.poll.records=50000\n"
        "consumer.fetch.max.bytes=67108864\n"
        "consumer.max.partition.fetch.bytes=8388608\n"
        "consumer.fetch.min.bytes=1048576\n",
        "utf-8",
    )
    sink.write_text(
        f"name=bench-{name}\n"
        "connector.class=com.clickhouse.kafka.connect.ClickHouseSinkConnector\n"
        f"tasks.max={_TASKS}\n"
        f"topics={topic.name}\n"
        f"topic2TableMap={topic.name}=event_log\n"
        f"hostname={host}\nport={port}\ndatabase={database}\nusername=default\npassword=\nssl=false\n"
        # Its exactly-once needs a KeeperMap table, and the local engine has no Keeper.
        "exactlyOnce=false\n"
        "clickhouseSettings=async_insert=0,input_format_skip_unknown_fields=1\n"
        f"ignorePartitionsWhenBatching=true\n{extra}",
        "utf-8",
    )
    classes = f"{jars / 'lib'}/*:{next(jars.glob('connect-for-benchmarks-*.jar'))}"
    lifeline = with_lifeline()
    java = ["java", "-Xmx2g", "-cp", classes, "org.apache.kafka.connect.cli.ConnectStandalone", str(worker), str(sink)]
    with _log(where).open("wb") as log:
        process = subprocess.Popen([*lifeline, *java], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _log(where: Site) -> Path:
    return where.scratch / "connect.log"


def _built(source: Path, directory: Path) -> Path:
    """Have Maven build the connector; where its jars are.

    Raises:
        OperationError: Maven is missing, or failed.
    """
    if not shutil.which("mvn") or not shutil.which("java"):
        raise OperationError("connect needs java (17 or later) and mvn")
    generated = directory / "generated"
    version = generated / "com" / "clickhouse" / "kafka" / "connect" / "sink" / "Version.java"
    version.parent.mkdir(parents=True, exist_ok=True)
    version.write_text(_VERSION, "utf-8")
    target = directory / "target"
    done = subprocess.run(
        [
            *("mvn", "-q", "-B", "-f", str(_HERE / "pom.xml"), "package"),
            f"-Dconnector.source={source.absolute()}",
            f"-Dconnector.generated={generated.absolute()}",
            f"-Dconnector.build={target.absolute()}",
        ],
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise OperationError(f"Maven could not build the connector:\n{(done.stdout + done.stderr)[-2000:]}")
    return target


def _json(body: bytes) -> bytes:
    """An event as the JSON that the table's columns take."""
    record = decode_record(body)
    seconds, nanoseconds = divmod(record["occurred_at"], 1_000_000_000)
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    record["occurred_at"] = f"{moment}.{nanoseconds:09}"
    present = {name: value for name, value in record.items() if value is not None}
    return json.dumps(present, ensure_ascii=False, separators=(",", ":")).encode()
