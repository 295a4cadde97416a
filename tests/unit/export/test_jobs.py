import json
from dataclasses import replace
from uuid import UUID

import pytest

from auditstream_export import ExportFilter, ExportJob, ExportRequest, JobFile, JobSettings, OutputFormat
from auditstream_export.jobs.export_job import job_from_request, request_json
from auditstream_export.jobs.job_audit import JobAudit
from auditstream_schemas.catalog import validate_payload
from auditstream_schemas.errors import ExportError, SettingsError
from auditstream_schemas.event import AuditEvent, Entity, Request
from auditstream_schemas.timestamp import parse_timestamp

NOW = parse_timestamp("2026-03-01T12:00:00.123456789Z")
JOB = ExportJob(
    id=UUID("019bc0de-0000-7005-8000-000000009aab"),
    request=ExportRequest(
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
    output_format=OutputFormat(profile="spreadsheet", split_rows=7),
    suffix=".zst",
    requester=Entity(id="ann", type="user", name="Ann", attributes={"role": "admin"}),
    label="a=b&c=\u2028",
    requested_at=NOW,
    queued_at=NOW,
    changed_at=NOW,
)


def test_a_request_is_read_back_from_its_record() -> None:
    assert job_from_request(request_json(JOB)) == JOB
    plain = replace(
        JOB, request=replace(JOB.request, filter=ExportFilter()), output_format=OutputFormat(), suffix="", label=""
    )
    assert job_from_request(request_json(plain).encode()) == plain


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("suffix", ".exe"),
        ("id", "x"),
        ("format", "xlsx"),
        ("profile", "web"),
        ("filter", {"scopes": []}),
        ("to", "2025-01-01T00:00:00Z"),
    ],
)
def test_a_malformed_record_is_refused(key: str, value: object) -> None:
    record = json.loads(request_json(JOB)) | {key: value}
    with pytest.raises(ExportError, match="this is not a request for an export"):
        job_from_request(json.dumps(record))
    with pytest.raises(ExportError, match="this is not a request for an export"):
        job_from_request(b"\xff")


def test_the_scopes_of_a_job_follow_from_its_filter() -> None:
    def scopes(**conditions: object) -> tuple[str, ...]:
        event_filter = ExportFilter(**conditions)  # type: ignore[arg-type]
        return replace(JOB, request=replace(JOB.request, filter=event_filter)).scopes

    assert scopes() == ()
    assert scopes(scope="a") == ("a",)
    assert scopes(scopes=("a", "b")) == ("a", "b")
    assert scopes(scopes=("a", "b"), scope="b") == ("b",)
    # No event matches, but the job belongs to the scopes of its requester.
    assert scopes(scopes=("a", "b"), scope="c") == ("a", "b")


def test_only_a_running_job_has_an_estimate_of_the_remaining_time() -> None:
    running = replace(JOB, state="running", rows=250, total=1000, rate=50.0)
    assert running.remaining == 15.0
    assert replace(running, rate=0.0).remaining is None
    assert replace(running, total=None).remaining is None
    assert replace(running, state="finished").remaining is None
    assert json.loads(json.dumps(running.to_dict()))["remaining_seconds"] == 15.0


def test_audit_events_about_a_job_are_in_the_catalog_one_for_each_scope() -> None:
    emitted: list[AuditEvent] = []
    audit = JobAudit(emitted.append, scope_type="organization", clock=lambda: NOW)
    data = JobFile(name=JOB.name, rows=5, bytes=70, sha256="5" * 64)
    manifest = JobFile(name=f"{JOB.name}.manifest.json", rows=0, bytes=9, sha256="6" * 64)
    finished = replace(
        JOB, state="finished", rows=5, files=(data, manifest), manifest=manifest.name, worker="w", ended_at=NOW + 1
    )
    cause = Request(id="r-1", attributes={"ip": "192.0.2.1"})
    assert (finished.data, finished.proofs, finished.sha256) == ((data,), (manifest,), "5" * 64)
    assert replace(finished, files=(data, data, manifest)).sha256 is None
    audit.requested(JOB, JOB.requester, cause)
    audit.denied(JOB, JOB.requester, "the quota", cause)
    audit.cancelled(JOB, JOB.requester, None)
    audit.downloaded(finished, JOB.requester, data, cause)
    audit.ended(finished)
    audit.ended(finished)
    audit.ended(replace(JOB, state="failed", error="reason", ended_at=NOW + 1))
    for event in emitted:
        validate_payload(event, strict=True)
        assert (event.target.type, event.target.id) == ("audit_log_export", str(JOB.id))
    assert [event.scope.id for event in emitted if event.scope] == ["org-1", "org-2"] * 7
    assert json.loads(emitted[0].payload)["filter"] == {
        "scopes": ["org-1", "org-2"],
        "action": ["user.*"],
        "actor": "u",
        "success": "false",
        "meta": ["k==v"],
        "q": "zwei Wörter",
    }
    assert json.loads(emitted[8].payload) == {"rows": 5, "bytes": 70, "sha256": "5" * 64}
    assert emitted[8:10] == emitted[10:12]
    assert emitted[8].id != emitted[9].id
    assert [event.success for event in emitted[::2]] == [True, False, True, True, True, True, False]


def test_settings_of_jobs_are_checked() -> None:
    with pytest.raises(SettingsError, match="AUDITSTREAM_EXPORT_TARGET is not set"):
        JobSettings().checked()
    for name, value in (("export_quota", -1), ("export_expire_days", 0.0)):
        with pytest.raises(SettingsError, match=f"AUDITSTREAM_{name.upper()} is"):
            JobSettings(export_target="x", **{name: value}).checked()  # type: ignore[arg-type]
    assert JobSettings(topic="t").requests == "t.exports"
    assert JobSettings(topic="t", export_topic="e").requests == "e"
