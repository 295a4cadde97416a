"""Other tools read the topic: kcat, ClickHouse's AvroConfluent format, Apache's avro package."""

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import avro.io
import avro.schema
import fastavro
import pytest
import urllib3

from auditstream_schemas.codec import encode
from auditstream_schemas.event import AuditEvent
from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.pipeline import put_events, schema_id

AWKWARD = [
    make_event(1, occurred_at="2026-10-21T13:50:54.474000001Z", payload={"n": 2**70, "text": 'a "b"\r\n,'}),
    make_event(2, scope=None, request=None, metadata={}),
    make_event(3, actor={"id": "u", "type": "user", "name": "نادية 🎉", "team": "x"}),
]


Kcat = Callable[..., bytes]


@pytest.fixture
def kcat(tenant: Tenant, backend: str) -> Kcat:
    """Runs kcat on the tenant's topic from its start to its end and returns its output."""
    program = shutil.which("kcat")
    if program is None:
        pytest.skip("kcat is not installed (Debian: apt install kcat)")
    if backend == "local":
        pytest.skip("Tansu's answer to ApiVersions is unreadable to librdkafka 2.0.2 of Debian's kcat; see test-kafka")

    def run(*arguments: str) -> bytes:
        servers = tenant.endpoints.bootstrap_servers
        return subprocess.run(
            [program, "-b", servers, "-t", tenant.topic, "-C", "-e", "-q", *arguments],
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout

    return run


def test_kcat_reads_records_that_decode_with_the_schema_of_the_registry(tenant: Tenant, kcat: Kcat) -> None:
    put_events(tenant, AWKWARD)
    # The sizes before the bytes are needed to split the output.
    data = kcat("-f", "%K %k %S %s")
    records = {}
    while data:
        key_size, _, data = data.partition(b" ")
        key, data = data[: int(key_size)], data[int(key_size) + 1 :]
        size, _, data = data.partition(b" ")
        records[key.decode()], data = data[: int(size)], data[int(size) :]
    assert set(records) == {str(event.id) for event in AWKWARD}
    for event in AWKWARD:
        value = records[str(event.id)]
        # Any tool can read the id as a slice; the schema comes from the registry by the id in the bytes.
        assert value[6:42].decode() == str(event.id)
        url = f"{tenant.endpoints.registry_url}/schemas/ids/{int.from_bytes(value[1:5])}"
        schema = json.loads(urllib3.request("GET", url).json()["schema"])
        decoded: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        assert decoded["payload"] == event.payload


def test_kcat_decodes_the_records_through_the_registry(tenant: Tenant, kcat: Kcat) -> None:
    features = subprocess.run(["kcat", "-V"], check=False, capture_output=True).stdout
    if b"avro" not in features.lower():
        pytest.skip("this kcat is built without Avro, as Debian's is")
    put_events(tenant, AWKWARD)
    lines = kcat("-s", "value=avro", "-r", tenant.endpoints.registry_url).splitlines()
    assert {json.loads(line)["payload"] for line in lines} == {event.payload for event in AWKWARD}


def test_clickhouse_reads_records_in_its_avro_confluent_format(tenant: Tenant) -> None:
    client = tenant.administrator()
    table = f"{tenant.database}.confluent"
    client.command(
        f"CREATE TABLE {table} (id UUID, occurred_at DateTime64(9, 'UTC'), action String, payload String, "
        "actor Tuple(id String, type String, name Nullable(String), attributes Map(String, String)), success Bool, "
        "scope Tuple(id String, type String, name Nullable(String), attributes Map(String, String))) ENGINE = Memory"
    )
    writer = schema_id(tenant)
    client.raw_insert(
        table,
        insert_block=b"".join(encode(event, writer) for event in AWKWARD),
        fmt="AvroConfluent",
        settings={
            "format_avro_schema_registry_url": tenant.endpoints.registry_url,
            "input_format_null_as_default": 1,
        },
    )
    rows = client.query(
        "SELECT toString(id), toUnixTimestamp64Nano(occurred_at), action, payload, actor.name, success, scope.id "
        f"FROM {table}"
    ).result_rows
    assert {tuple(row) for row in rows} == {
        (
            str(event.id),
            event.occurred_at,
            event.action,
            event.payload,
            event.actor.name,
            event.success,
            event.scope.id if event.scope else "",
        )
        for event in AWKWARD
    }


# The package warns that it reads timestamp-nanos as a plain long.
@pytest.mark.filterwarnings("ignore::avro.errors.IgnoredLogicalType")
@pytest.mark.parametrize("event", AWKWARD)
def test_apaches_avro_package_reads_records_with_the_schema_of_the_registry(tenant: Tenant, event: AuditEvent) -> None:
    value = encode(event, schema_id(tenant))
    url = f"{tenant.endpoints.registry_url}/schemas/ids/{int.from_bytes(value[1:5])}"
    schema = avro.schema.parse(urllib3.request("GET", url).json()["schema"])
    record: Any = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(io.BytesIO(value[5:])))
    assert str(record["id"]) == str(event.id)
    assert record["payload"] == event.payload
    assert record["actor"]["name"] == event.actor.name
    assert (record["scope"] or {}).get("id") == (event.scope.id if event.scope else None)
