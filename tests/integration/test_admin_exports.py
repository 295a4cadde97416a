"""Exports that are asked for on the page, run by a real worker, and taken away through the page."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
from confluent_kafka.admin import AdminClient

from auditstream_admin import JobExports
from auditstream_export import JobSettings
from auditstream_export.signing import make_key
from auditstream_export.verification import verify_export
from auditstream_ops.topics import TopicPlan, create_topics
from auditstream_schemas.errors import SettingsError
from auditstream_schemas.settings import KafkaSettings
from auditstream_schemas.timestamp import format_timestamp
from tests.support.admin import ACME, AUDITOR, GLOBEX, desk
from tests.support.events import make_event
from tests.support.export_jobs import ALL, job_settings, run_exporter
from tests.support.stack import Tenant
from tests.support.stored_events import store

EVENTS = 30


@pytest.fixture
def settings(tenant: Tenant, tmp_path: Path) -> Iterator[JobSettings]:
    found = job_settings(tenant, tmp_path / "exports", export_key_file=tmp_path / "key.pem", export_quota=2)
    kafka = KafkaSettings(kafka_bootstrap_servers=found.kafka_bootstrap_servers, topic=found.topic)
    create_topics(kafka, TopicPlan(), dead_letter_topic=tenant.dlq_topic, request_topic=found.requests)
    store(found, [make_event(number) for number in range(EVENTS)])
    yield found
    admin = AdminClient(kafka.librdkafka_client("tests"))
    admin.delete_topics([found.requests])[found.requests].result(30)


def test_an_export_of_what_is_seen_is_run_and_taken_away_with_its_signature(
    settings: JobSettings, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "key.pem")
    exports = JobExports(settings)
    page = desk(settings, service=exports)
    query = urlencode({"from": format_timestamp(ALL.start), "to": format_timestamp(ALL.end)})
    with page.client(ACME) as acme, page.client(GLOBEX) as globex, page.client(AUDITOR) as auditor:
        home = acme.get("/api/v1/exports")
        assert home.json() == {"exports": []}
        headers = {"x-csrf-token": acme.get("/events").text.partition('csrf-token" content="')[2].partition('"')[0]}
        asked = acme.post("/api/v1/exports", json={"query": query, "format": "csv"}, headers=headers)
        assert asked.status_code == 202, asked.text
        address = f"/api/v1/exports/{asked.json()['id']}"
        assert asked.json()["state"] == "queued"
        assert acme.get(f"{address}/file").status_code == 409
        [job] = run_exporter(settings)
        done = acme.get(address).json()
        seen = acme.get(f"/api/v1/events?{query}&limit=100").json()["events"]
        assert (done["state"], done["rows"]) == ("finished", len(seen))
        for name, part in ((job.name, "events"), (job.manifest, "manifest"), (f"{job.manifest}.sig", "signature")):
            (tmp_path / name).write_bytes(acme.get(f"{address}/file", params={"part": part}).content)
        checked = verify_export(tmp_path / job.name, trusted=[key])
        assert checked.is_sound
        assert checked.signature.state == "trusted"
        rows = (tmp_path / job.name).read_text("utf-8")
        assert [each["id"] for each in seen if each["id"] not in rows] == []
        assert 0 < len(seen) < EVENTS
        assert globex.get(address).status_code == globex.get(f"{address}/file").status_code == 404
        assert globex.get("/api/v1/exports").json() == {"exports": []}
        assert auditor.get(address).status_code == 200
        # The second is the last of the day; the third is refused, and nothing is written.
        for expected in (202, 403):
            again = acme.post("/api/v1/exports", json={"query": query, "format": "ndjson"}, headers=headers)
            assert again.status_code == expected, again.text
        latest = acme.get("/api/v1/exports").json()["exports"][0]["id"]
        cancelled = acme.delete(f"/api/v1/exports/{latest}", headers=headers)
        assert cancelled.json()["state"] == "cancelled"
    exports.close()
    said = [action for action in page.actions() if "export" in action or "deny" in action]
    assert said == [
        "audit_log.export.request",
        "audit_log.export.download",
        "audit_log.export.request",
        "audit_log.access.deny",
        "audit_log.export.cancel",
    ]


def test_a_page_without_a_place_for_files_has_no_exports(settings: JobSettings) -> None:
    with pytest.raises(SettingsError, match="AUDITSTREAM_EXPORT_TARGET"):
        JobExports(replace(settings, export_target=""))
