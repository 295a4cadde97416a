"""Exports of the page with real jobs: requested, run, downloaded, and hidden from other organisations."""

import gzip
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from confluent_kafka.admin import AdminClient

from auditstream_export import ExportFilter, ExportJobs, ExportRequest, OutputFormat
from auditstream_ops.deploy.topics import TopicPlan, create_topics
from auditstream_schemas.catalog import validate_payload
from auditstream_schemas.timestamp import from_datetime
from tests.support.admin import ACME, AUDITOR, GLOBEX, admin_page
from tests.support.events import make_event
from tests.support.export_jobs import ANN, job_settings, run_exporter
from tests.support.fix_stack import Tenant
from tests.support.stored_events import store


def test_each_file_of_a_split_export_can_be_downloaded(tenant: Tenant, tmp_path: Path) -> None:
    settings = job_settings(tenant, tmp_path / "exports")
    plan = TopicPlan(request_partitions=1)
    create_topics(settings, plan, dead_letter_topic=tenant.dlq_topic, request_topic=settings.requests)
    store(settings, [make_event(number) for number in range(12)], ingested_at=datetime.now(UTC) - timedelta(minutes=5))
    jobs = ExportJobs(settings, lambda _event: None)
    export_request = ExportRequest(start=0, end=from_datetime(datetime.now(UTC)), filter=ExportFilter())
    job = jobs.request(export_request, requester=ANN, output_format=OutputFormat(format="ndjson", split_rows=5))
    run_exporter(settings)
    with admin_page(settings, exports=jobs).client(AUDITOR) as ann:
        row = ann.get(f"/exports/{job.id}").text
        links = re.findall(r'href="(/exports/[^"]+-\d+\.ndjson)"', row)
        parts = [ann.get(link).text.splitlines() for link in links]
    assert [len(part) for part in parts] == [5, 5, 2]
    assert len({json.loads(line)["id"] for part in parts for line in part}) == 12


def test_an_export_contains_the_listed_events_and_is_hidden_from_other_organisations(
    tenant: Tenant, tmp_path: Path
) -> None:
    settings = job_settings(tenant, tmp_path / "exports", export_quota=3)
    create_topics(
        settings, TopicPlan(request_partitions=1), dead_letter_topic=tenant.dlq_topic, request_topic=settings.requests
    )
    events = [make_event(number) for number in range(60)]
    store(settings, events, ingested_at=datetime.now(UTC) - timedelta(minutes=5))
    emitted: list[Any] = []
    jobs = ExportJobs(settings, emitted.append)
    page = admin_page(settings, exports=jobs)
    query = "range=30d&action=context.*&action=user.*&success=true&meta=region%3Deu-central-1&q=event"
    with page.client(ACME) as ada, page.client(GLOBEX) as eve, page.client(AUDITOR) as ann:
        csrf = ada.get("/events").text.partition('csrf-token" content="')[2].partition('"')[0]
        form = {"x-csrf-token": csrf}
        listed = {event["id"] for event in ada.get(f"/api/v1/events?{query}").json()["events"]}
        assert listed
        response = ada.post("/api/v1/exports", json={"query": query, "format": "ndjson"}, headers=form)
        assert response.status_code == 202
        job = response.json()
        assert (job["state"], job["scopes"], job["requested_by"]) == ("queued", ["org-0"], "ada")
        assert ada.get(f"/exports/{job['id']}/file").status_code == 409
        run_exporter(settings)
        done = ada.get(f"/api/v1/exports/{job['id']}").json()
        assert (done["state"], done["rows"], done["total"]) == ("finished", len(listed), len(listed))
        data, manifest, *_ = done["files"]
        answer = ada.get(f"/exports/{job['id']}/file")
        assert hashlib.sha256(answer.content).hexdigest() == done["sha256"]
        assert data in answer.headers["content-disposition"]
        rows = [json.loads(line) for line in gzip.decompress(answer.content).splitlines()]
        assert {row["id"] for row in rows} == listed
        manifest_json = ada.get(f"/api/v1/exports/{job['id']}/file", params={"name": manifest}).json()
        assert manifest_json["filter"]["scopes"] == ["org-0"]
        # An auditor may download it, an admin of another organisation gets 404, and no file name leads outside.
        assert ann.get(f"/exports/{job['id']}/file").status_code == 200
        assert eve.get("/api/v1/exports").json() == {"exports": []}
        for path in (f"/exports/{job['id']}", f"/exports/{job['id']}/file"):
            assert eve.get(path).status_code == 404
        for name in ("../../../etc/passwd", "/etc/passwd", "..", manifest + "x"):
            assert ada.get(f"/exports/{job['id']}/file", params={"name": name}).status_code == 409
        second = ada.post("/api/v1/exports", json={"query": "range=7d"}, headers=form).json()
        cancelled = ada.delete(f"/api/v1/exports/{second['id']}", headers=form).json()
        assert cancelled["state"] == "cancelled"
        third = ada.post("/api/v1/exports", json={"query": "", "format": "parquet"}, headers=form)
        assert third.status_code == 202
        assert ada.post("/api/v1/exports", json={"query": ""}, headers=form).status_code == 403
        assert len(ada.get("/api/v1/exports").json()["exports"]) == 3
    assert {event.action.removeprefix("audit_log.export.") for event in emitted} == {
        "request",
        "download",
        "cancel",
        "deny",
    }
    for event in emitted:
        validate_payload(event, strict=True)
        assert UUID(event.target.id)
        assert event.scope.id == "org-0"
        assert event.request.attributes["user_agent"] == "testclient"
    jobs.close()
    admin = AdminClient(settings.librdkafka_client("tests"))
    admin.delete_topics([settings.requests])[settings.requests].result(30)
