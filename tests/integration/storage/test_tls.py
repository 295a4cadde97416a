"""With https in the URL, every client speaks TLS on any port, verifies the certificate, and sends no plain text."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from auditstream_export import export_events
from auditstream_ops.deploy.topics import TopicPlan, create_topics
from auditstream_producer import AuditProducer, ProducerSettings
from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_schemas.errors import AuditstreamError, RegistryUnavailableError, StoreUnavailableError
from auditstream_schemas.registry import RegistryClient
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_sink import SinkSettings
from auditstream_sink.clickhouse_writer import ClickHouseWriter, UnknownOutcomeError
from auditstream_storage import Connection
from tests.support.admin import ACME, admin_page
from tests.support.events import make_event
from tests.support.export_jobs import ALL, ANN, existing, job_settings, run_exporter, service
from tests.support.fix_stack import Tenant
from tests.support.pipeline import count, put_events, run_sink, sink_settings
from tests.support.tls_relay import TlsRelay, write_certificates

CA_FIX = r"does not verify.*AUDITSTREAM_CLICKHOUSE_CA_FILE"


@pytest.fixture
def clickhouse(tenant: Tenant, tmp_path: Path) -> Iterator[TlsRelay]:
    """A relay to ClickHouse, through which no plain text may come."""
    with TlsRelay(tenant.endpoints.clickhouse_url, tmp_path / "clickhouse") as relay:
        yield relay
        assert relay.plain_text == []


@pytest.fixture
def registry(tenant: Tenant, tmp_path: Path) -> Iterator[TlsRelay]:
    """A relay to the registry, through which no plain text may come."""
    with TlsRelay(tenant.endpoints.registry_url, tmp_path / "registry") as relay:
        yield relay
        assert relay.plain_text == []


@pytest.fixture
def other_ca(tmp_path: Path) -> Path:
    """The certificate of a CA that signed nothing here."""
    return write_certificates(tmp_path / "other")


def over_tls(tenant: Tenant, relay: TlsRelay, ca_file: Path | None) -> ClickHouseSettings:
    return replace(tenant.clickhouse("exporter"), clickhouse_url=relay.url, clickhouse_ca_file=ca_file)


def command(tenant: Tenant, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "auditstream_ops", *arguments],
        env={**os.environ, **tenant.env, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_sink_stores_over_tls(tenant: Tenant, clickhouse: TlsRelay, registry: TlsRelay) -> None:
    put_events(tenant, [make_event(0), make_event(1)])
    totals = run_sink(
        tenant,
        clickhouse_url=clickhouse.url,
        clickhouse_ca_file=clickhouse.ca_file,
        schema_registry_url=registry.url,
        schema_registry_ca_file=registry.ca_file,
    )
    assert totals.stored == count(tenant) == 2
    assert clickhouse.relayed
    assert registry.relayed


@pytest.mark.parametrize("names_other_ca", [False, True])
def test_the_sink_names_the_fix_for_an_unknown_ca(
    tenant: Tenant, clickhouse: TlsRelay, other_ca: Path, *, names_other_ca: bool
) -> None:
    settings = sink_settings(
        tenant, clickhouse_url=clickhouse.url, clickhouse_ca_file=other_ca if names_other_ca else None
    )
    assert isinstance(settings, SinkSettings)
    with pytest.raises(UnknownOutcomeError, match=CA_FIX):
        ClickHouseWriter(settings, instance="i").clear_stage()
    assert clickhouse.relayed == 0


def test_an_export_is_written_over_tls(tenant: Tenant, clickhouse: TlsRelay, other_ca: Path, tmp_path: Path) -> None:
    put_events(tenant, [make_event(0)])
    run_sink(tenant)
    assert export_events(over_tls(tenant, clickhouse, clickhouse.ca_file), ALL, tmp_path / "all.csv").rows == 1
    with pytest.raises(AuditstreamError, match=CA_FIX):
        export_events(over_tls(tenant, clickhouse, other_ca), ALL, tmp_path / "none.csv")


def test_the_exporter_runs_jobs_over_tls(tenant: Tenant, clickhouse: TlsRelay, other_ca: Path, tmp_path: Path) -> None:
    settings = job_settings(
        tenant, tmp_path / "exports", clickhouse_url=clickhouse.url, clickhouse_ca_file=clickhouse.ca_file
    )
    create_topics(
        settings,
        TopicPlan(partitions=1, replication=1),
        dead_letter_topic=tenant.dlq_topic,
        request_topic=settings.requests,
    )
    jobs = service(settings)
    job = jobs.request(ALL, requester=ANN)
    run_exporter(settings)
    assert existing(jobs, job.id).state == "finished"
    jobs.close()
    with pytest.raises(AuditstreamError, match=CA_FIX):
        service(job_settings(tenant, tmp_path, clickhouse_url=clickhouse.url, clickhouse_ca_file=other_ca)).jobs(None)


def test_the_page_reads_over_tls(tenant: Tenant, clickhouse: TlsRelay, other_ca: Path) -> None:
    put_events(tenant, [make_event(0)])
    run_sink(tenant)
    page = admin_page(over_tls(tenant, clickhouse, None), clickhouse_ca_file=clickhouse.ca_file)
    with page.client(ACME) as client:
        assert client.get(f"/api/v1/events/{make_event(0).id}").status_code == 200
    blind = admin_page(over_tls(tenant, clickhouse, None), clickhouse_ca_file=other_ca)
    with blind.client(ACME) as client:
        answer = client.get("/api/v1/events")
        assert answer.status_code == 503


def test_commands_speak_tls(tenant: Tenant, clickhouse: TlsRelay, other_ca: Path) -> None:
    url, ca_file = clickhouse.url, str(clickhouse.ca_file)
    answer = command(tenant, "sql", "SELECT 42", AUDITSTREAM_CLICKHOUSE_URL=url, AUDITSTREAM_CLICKHOUSE_CA_FILE=ca_file)
    assert "42" in answer.stdout, answer.stderr
    for variables in ({}, {"AUDITSTREAM_CLICKHOUSE_CA_FILE": str(other_ca)}):
        refused = command(tenant, "sql", "SELECT 42", AUDITSTREAM_CLICKHOUSE_URL=url, **variables)
        assert refused.returncode == 1
        assert "the certificate does not verify" in refused.stderr
        assert "AUDITSTREAM_CLICKHOUSE_CA_FILE" in refused.stderr


def test_a_host_name_that_the_certificate_lacks_is_refused(clickhouse: TlsRelay) -> None:
    settings = ClickHouseSettings(
        clickhouse_url=clickhouse.url.replace("127.0.0.1", "localhost"), clickhouse_ca_file=clickhouse.ca_file
    )
    with pytest.raises(StoreUnavailableError, match="host name"), Connection(settings, StoreUnavailableError).client():
        pass


def test_https_to_a_plain_server_is_a_clear_error(tenant: Tenant) -> None:
    settings = ClickHouseSettings(clickhouse_url=tenant.endpoints.clickhouse_url.replace("http:", "https:"))
    with (
        pytest.raises(StoreUnavailableError, match="does the server speak https"),
        Connection(settings, StoreUnavailableError).client(),
    ):
        pass


def test_the_registry_is_reached_over_tls(tenant: Tenant, registry: TlsRelay, other_ca: Path) -> None:
    client = RegistryClient(registry.url, ca_file=registry.ca_file)
    assert client.schema_id(f"{tenant.topic}-value", SCHEMA_JSON)
    client.close()
    for ca_file in (None, other_ca):
        client = RegistryClient(registry.url, ca_file=ca_file, retries=0)
        with pytest.raises(RegistryUnavailableError, match=r"does not verify.*AUDITSTREAM_SCHEMA_REGISTRY_CA_FILE"):
            client.schema_id(f"{tenant.topic}-value", SCHEMA_JSON)
        client.close()


def test_a_producer_looks_schemas_up_over_tls(tenant: Tenant, registry: TlsRelay) -> None:
    settings = ProducerSettings(
        kafka_bootstrap_servers=tenant.endpoints.bootstrap_servers,
        topic=tenant.topic,
        schema_registry_url=registry.url,
        schema_registry_ca_file=registry.ca_file,
    )
    with AuditProducer(settings) as producer:
        producer.emit(
            action="release.promote",
            actor={"id": "u", "type": "user"},
            target={"id": "r", "type": "release"},
            payload={},
        )
        assert producer.flush(30) == 0
    assert registry.relayed
