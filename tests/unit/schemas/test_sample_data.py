"""Real audit events of other systems, converted to our fields: none is refused, none is changed."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from auditstream_schemas.codec import decode, encode
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.timestamp import format_timestamp, parse_timestamp
from tests.support.events import make_event

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the sample data is not beside the repository (../shared/data)"
)


def lines(name: str) -> Iterator[str]:
    yield from (DATA / name).read_text("utf-8").splitlines()


def survives(event: AuditEvent, source: str) -> None:
    assert decode(encode(event, 1)) == event
    assert AuditEvent.from_json(event.to_json()) == event
    assert json.loads(event.payload) == json.loads(source)


def event_json(source: str, members: dict[str, Any]) -> str:
    """An event's JSON whose payload is the source line, byte for byte."""
    return json.dumps(members)[:-1] + f', "payload": {source}}}'


def test_every_public_action_name_is_well_formed() -> None:
    names = list(lines("actions.txt"))
    assert len(names) == 81
    for name in names:
        assert make_event(0, action=name).action == name


def test_cloudtrail_events_are_preserved() -> None:
    sources = list(lines("aws_cloudtrail.ndjson"))
    assert len(sources) == 301
    for source in sources:
        trail = json.loads(source)
        identity = trail["userIdentity"]
        event = AuditEvent.from_json(
            event_json(
                source,
                {
                    "action": "aws.api.call",
                    "actor": {
                        "id": identity.get("arn") or identity.get("invokedBy") or identity["type"],
                        "type": identity["type"],
                    },
                    "target": {"id": trail["eventSource"], "type": "service", "name": trail["eventName"]},
                    "occurred_at": trail["eventTime"],
                    "id": trail["eventID"],
                    "metadata": {"region": trail["awsRegion"]},
                    "scope": {"id": trail["recipientAccountId"], "type": "account"},
                    "success": "errorCode" not in trail,
                },
            )
        )
        survives(event, source)
        assert format_timestamp(event.occurred_at) == trail["eventTime"]


def test_google_cloud_events_keep_their_nanoseconds() -> None:
    sources = list(lines("gcp_cloud_audit.ndjson"))
    assert len(sources) == 78
    digits = set()
    for source in sources:
        entry = json.loads(source)
        call = entry.get("protoPayload", {})
        # One was exported by BigQuery, whose "… UTC" is not ISO-8601.
        timestamp = entry["timestamp"].replace(" UTC", "Z")
        event = AuditEvent.from_json(
            event_json(
                source,
                {
                    "action": "gcp.api.call",
                    "actor": {
                        "id": call.get("authenticationInfo", {}).get("principalEmail") or "unknown",
                        "type": "principal",
                    },
                    "target": {"id": call.get("resourceName") or "unknown", "type": "resource"},
                    "occurred_at": timestamp,
                    "id": str(UUID(hashlib.sha256(entry["insertId"].encode()).hexdigest()[:32])),
                },
            )
        )
        survives(event, source)
        assert event.occurred_at == parse_timestamp(timestamp)
        digits.add(len(timestamp))
    assert len("2021-05-12T16:05:47.688372541Z") in digits
