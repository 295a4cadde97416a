import json
from dataclasses import replace
from uuid import UUID

import pytest

from auditstream_export import (
    ExportFilter,
    ExportJob,
    ExportRequest,
    JobFile,
    JobSettings,
    OutputFormat,
)
from auditstream_export.jobs.export_job import job_from_request, request_json
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_schemas.catalog import validate_payload
from auditstream_schemas.errors import ExportError, SettingsError
from auditstream_schemas.event import AuditEvent, Entity, Request
from auditstream_schemas.timestamp import parse_timestamp

NOW = parse_timestamp("2026-03-01T12:00:00.123456789Z")
JOB = ExportJob(
    id=UUID("019bc0de-0000-7005-8000-000000009aab"),
    wanted=ExportRequest(
        start=parse_timestamp("2026-01-01T00:00:00Z"),
        end=parse_timestamp("2026-02-01T00:00:00Z"),
        filter=ExportFilter(
            scopes=("org-1", "org-2"),
            actions=("user.*",),
            actor="u",
            success=False,
            metadata=(("k", "=v"),),
            text="zwei Wörter",
        ),
    ),
    shape=OutputFormat(profile="spreadsheet", split_rows=7),
    suffix=".zst",
    requester=Entity(id="ann", type="user", name="Ann", attributes={"role": "admin"}),
    label="a=b&c=\u2028",
    requested_at=NOW,
    queued_at=NOW,
    changed_at=NOW,
)


def test_a_request_survives_its_record() -> None:
    assert job_from_request(request_json(JOB)) == JOB
    plain = replace(JOB, wanted=replace(JOB.wanted, filter=ExportFilter()), shape=OutputFormat(), suffix="", label="")
    assert job_from_request(request_json(plain).encode()) == plain


@pytest.mark.parametrize(
    ("key", "value"),
    [("suffix", ".exe"), ("id", "x"), ("format", "xlsx"), ("filter", {"scopes": []}), ("to", "2025-01-01T00:00:00Z")],
)
def test_a_record_that_is_no_request_is_refused(key: str, value: object) -> None:
    record = json.loads(request_json(JOB)) | {key: value}
    with pytest.raises(ExportError, match="this is no request for an export"):
        job_from_request(json.dumps(record))
    with pytest.raises(ExportError, match="this is no request for an export"):
        job_from_request(b"\xff")


def test_the_scopes_of_a_job_are_those_that_its_events_may_have() -> None:
    def scopes(**conditions: object) -> tuple[str, ...]:
        wanted = ExportFilter(**conditions)  # type: ignore[arg-type]
        return replace(JOB, wanted=replace(JOB.wanted, filter=wanted)).scopes

    assert scopes() == ()
    assert scopes(scope="a") == ("a",)
    assert scopes(scopes=("a", "b")) == ("a", "b")
    assert scopes(scopes=("a", "b"), scope="b") == ("b",)
    # Of no event at all; but it is on record for those who asked.
    assert scopes(scopes=("a", "b"), scope="c") == ("a", "b")


def test_how_long_a_job_will_take_is_told_while_it_runs() -> None:
    running = replace(JOB, state="running", rows=250, total=1000, rate=50.0)
    assert running.remaining == 15.0
    assert replace(running, rate=0.0).remaining is None
    assert replace(running, total=None).remaining is None
    assert replace(running, state="finished").remaining is None
    assert json.loads(json.dumps(running.to_dict()))["remaining_seconds"] == 15.0


def test_what_is_said_about_an_export_is_what_the_catalog_knows_for_each_scope() -> None:
    said: list[AuditEvent] = []
    audit = JobAudit(said.append, scope_type="organization", clock=lambda: NOW)
    data = JobFile(name=JOB.name, rows=5, bytes=70, sha256="5" * 64)
    manifest = JobFile(name=f"{JOB.name}.manifest.json", rows=0, bytes=9, sha256="6" * 64)
    done = replace(
        JOB, state="finished", rows=5, files=(data, manifest), manifest=manifest.name, worker="w", ended_at=NOW + 1
    )
    cause = Request(id="r-1", attributes={"ip": "192.0.2.1"})
    audit.requested(JOB, JOB.requester, cause)
    audit.denied(JOB, JOB.requester, "the quota", cause)
    audit.cancelled(JOB, JOB.requester, None)
    audit.downloaded(done, JOB.requester, data, cause)
    audit.ended(done)
    audit.ended(done)
    audit.ended(replace(JOB, state="failed", error="why", ended_at=NOW + 1))
    for event in said:
        validate_payload(event, strict=True)
        assert (event.target.type, event.target.id) == ("audit_log_export", str(JOB.id))
    assert [event.scope.id for event in said if event.scope] == ["org-1", "org-2"] * 7
    assert json.loads(said[0].payload)["filter"] == {
        "scopes": ["org-1", "org-2"],
        "action": ["user.*"],
        "actor": "u",
        "success": "false",
        "meta": ["k==v"],
        "q": "zwei Wörter",
    }
    assert json.loads(said[8].payload) == {"rows": 5, "bytes": 70, "sha256": "5" * 64}
    assert said[8:10] == said[10:12]
    assert said[8].id != said[9].id
    assert [event.success for event in said[::2]] == [True, False, True, True, True, True, False]


def test_a_worker_needs_to_know_where_files_go() -> None:
    with pytest.raises(SettingsError, match="AUDITSTREAM_EXPORT_TARGET is not set"):
        JobSettings().checked()
    for name, value in (("export_quota", -1), ("export_expire_days", 0.0)):
        with pytest.raises(SettingsError, match=f"AUDITSTREAM_{name.upper()} is"):
            JobSettings(export_target="x", **{name: value}).checked()  # type: ignore[arg-type]
    assert JobSettings(topic="t").requests == "t.exports"
    assert JobSettings(topic="t", export_topic="e").requests == "e"
