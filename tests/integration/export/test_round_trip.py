"""The commands as users run them: emit, sink, export; and back again."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

from auditstream_export import event_json_from_row
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.timestamp import format_timestamp, parse_timestamp
from tests.support.events import make_event
from tests.support.fix_stack import NewTenant, Tenant
from tests.support.pipeline import assert_balanced, command_credentials, count, partition_checks

DAY = 24 * 3600 * 10**9
SAMPLES = Path(__file__).parents[4] / "shared" / "data"
NAMESPACE = UUID("9c1a3f0e-6c0f-4b6e-8a58-0d5b0c6c7f11")

AWKWARD_PAYLOADS = [
    '{"n":123456789012345678901234567890,"f":1.10,"e":1E5,"z":-0.0}',
    '{"text":"line\\r\\nbreak, \\"quotes\\" and \\u00e9scapes é","tab":"\\t"}',
    '{"b":1,"a":2,"b":3}',
    '{"deep":' + "[" * 100 + "]" * 100 + "}",
    "{}",
    '{"rtl":"مرحبا","emoji":"👩‍👩‍👧‍👦","formula":"=1+1","slash":"a/b","del":"\x7f","ls":"\u2028"}',
]


def awkward_events() -> list[str]:
    """Lines of NDJSON that try every corner of the contract."""
    lines = [make_event(number).to_json() for number in range(20)]
    for number, payload in enumerate(AWKWARD_PAYLOADS):
        sample = json.loads(make_event(100 + number).to_json())
        sample["payload"] = "PAYLOAD"
        sample["action"] = f"odd-one_{number}.very.deeply_nested.action-2"
        sample["occurred_at"] = format_timestamp(time.time_ns() // DAY * DAY - DAY + number * 100 + number % 2)
        if number % 2:
            del sample["scope"], sample["request"]
        sample["actor"] |= {"name": '=cmd|"x"\r\n,é', "z": "1", "a": "", "ключ": "🎉"}
        sample["target"].pop("name", None)
        sample["metadata"] = {"k,1": 'v"1"', "empty": "", "\u2028": "\x01"}
        lines.append(json.dumps(sample, ensure_ascii=False).replace('"PAYLOAD"', payload))
    lines.append(
        json.dumps({**json.loads(lines[-1]), "id": str(UUID(int=5)), "actor": {"id": "x", "type": "y", "name": ""}})
    )
    return lines


def sample_events() -> Iterator[str]:
    """Real audit events of two cloud providers as JSON that `auditstream emit` accepts, moved into the last weeks."""
    base = time.time_ns() // DAY * DAY - 40 * DAY
    for line in (SAMPLES / "aws_cloudtrail.ndjson").read_text("utf-8").splitlines():
        event = json.loads(line)
        yield _sample(
            line,
            base,
            id=event["eventID"],
            action=f"aws.{event['eventSource'].partition('.')[0]}.{event['eventName'].lower()}",
            actor=event["userIdentity"].get("arn") or "aws",
            when=event["eventTime"],
            success="errorCode" not in event,
        )
    for line in (SAMPLES / "gcp_cloud_audit.ndjson").read_text("utf-8").splitlines():
        event = json.loads(line)
        payload = event.get("protoPayload", {})
        yield _sample(
            line,
            base,
            id=str(uuid5(NAMESPACE, event["insertId"])),
            action="gcp." + ".".join(filter(None, payload.get("serviceName", "x").lower().split("."))),
            actor=payload.get("authenticationInfo", {}).get("principalEmail") or "gcp",
            when=event["timestamp"].replace(" UTC", "Z").replace(" ", "T"),
            success=not payload.get("status", {}).get("code"),
        )


def _sample(line: str, base: int, *, id: str, action: str, actor: str, when: str, success: bool) -> str:
    event: dict[str, Any] = {
        "id": id,
        "action": action,
        "actor": {"id": actor, "type": "user"},
        "target": {"id": "cloud", "type": "account"},
        "payload": "PAYLOAD",
        "occurred_at": format_timestamp(base + parse_timestamp(when) % (30 * DAY)),
        "metadata": {},
        "version": 1,
        "success": success,
    }
    return json.dumps(event).replace('"PAYLOAD"', line)


def auditstream(tenant: Tenant, *arguments: str) -> str:
    process = subprocess.run(
        [sys.executable, "-m", "auditstream_ops", *arguments],
        # The payloads here are odd on purpose; the catalog has tests of its own.
        env={**os.environ, **tenant.env, **command_credentials(arguments[0]), "AUDITSTREAM_CATALOG_MODE": "off"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def through_the_pipeline(tenant: Tenant, events: Path) -> dict[str, int]:
    auditstream(tenant, "emit", str(events))
    totals: dict[str, int] = json.loads(auditstream(tenant, "sink", "--until-idle", "1", "--json"))
    return totals


def export(tenant: Tenant, path: Path) -> bytes:
    start = format_timestamp(time.time_ns() // DAY * DAY - 360 * DAY)
    auditstream(tenant, "export", "--from", start, "--to", "2200-01-01", "-o", str(path))
    return path.read_bytes()


def lines_of(exported: Path) -> str:
    """The events of an export as NDJSON."""
    csv.field_size_limit(1_000_000)
    with exported.open(encoding="utf-8", newline="") as file:
        return "".join(event_json_from_row(row) + "\n" for row in csv.DictReader(file))


@pytest.mark.parametrize("source", ["awkward", "samples"])
def test_an_export_emitted_into_an_empty_stack_exports_the_same_bytes(
    source: str, new_tenant: NewTenant, tmp_path: Path
) -> None:
    if source == "samples" and not SAMPLES.is_dir():
        pytest.skip("the sample data is not beside the repository")
    lines = awkward_events() if source == "awkward" else list(sample_events())
    first, second = new_tenant(), new_tenant()
    events, again = tmp_path / "events.ndjson", tmp_path / "again.ndjson"
    events.write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="\n")

    totals = through_the_pipeline(first, events)
    exported = export(first, tmp_path / "first.csv")
    distinct = {AuditEvent.from_json(line).id: AuditEvent.from_json(line) for line in reversed(lines)}
    assert totals["stored"] == len(distinct)
    assert totals["duplicates"] + totals["conflicts"] == len(lines) - len(distinct)

    again.write_text(lines_of(tmp_path / "first.csv"), "utf-8", newline="\n")
    assert {
        event.id: event for event in map(AuditEvent.from_json, again.read_text("utf-8").split("\n")[:-1])
    } == distinct
    through_the_pipeline(second, again)
    assert export(second, tmp_path / "second.csv") == exported
    for tenant in (first, second):
        assert_balanced(tenant)


def test_events_emitted_twice_are_stored_once_and_counted_as_duplicates(tenant: Tenant, tmp_path: Path) -> None:
    events = tmp_path / "events.ndjson"
    events.write_text("".join(make_event(number).to_json() + "\n" for number in range(1_000)), "utf-8")
    first = through_the_pipeline(tenant, events)
    second = through_the_pipeline(tenant, events)
    assert (first["stored"], first["duplicates"]) == (1_000, 0)
    assert (second["stored"], second["duplicates"]) == (0, 1_000)
    assert count(tenant) == 1_000
    assert sum(account.duplicates for account in partition_checks(tenant)) == 1_000
