"""The events of the demo: valid ones of every action of the catalog, and broken records."""

import io
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import fastavro
from uuid_utils.compat import uuid7

from auditstream_schemas.catalog import catalog
from auditstream_schemas.codec import SCHEMA_JSON, decode_record, encode, join, split
from auditstream_schemas.event import AuditEvent, Entity, Request

NANOSECONDS = 1_000_000_000
YEAR_SECONDS = 365 * 24 * 3600

_PEOPLE = ("Ada Byron", "Grace Hopper", "Katherine Johnson", "Радия Перлман", "刘洋", "نادية", "Zoë Ångström")
_ORGANISATIONS = ("acme", "globex", "initech", "umbrella", "wayne", "東京電機")
_REGIONS = ("eu-central-1", "us-east-1", "ap-northeast-1")


class BrokenRecord(NamedTuple):
    """A record that no sink can store: the kind of the damage, and the bytes."""

    kind: str
    value: bytes


def demo_events(count: int, *, now: int, seed: int) -> Iterator[AuditEvent]:
    """Valid events of every action, spread over the twelve months before ``now`` (nanoseconds), the newest last.

    The same seed gives the same events, except for their ids, which contain the time of the call.
    """
    pick = random.Random(seed)  # noqa: S311 - test data, no secret
    # Events about the audit log itself come from exports and the page.
    entries = [entry for action, entry in catalog().items() if not action.startswith("audit_log.")]
    examples = [AuditEvent.from_json(json.dumps(entry.example, ensure_ascii=False)) for entry in entries]
    for number in range(count):
        example = examples[number % len(examples)]
        age = (count - number) * (YEAR_SECONDS - 2 * 24 * 3600) / count
        person = pick.randrange(len(_PEOPLE) * 40)
        organisation = pick.choice(_ORGANISATIONS)
        yield replace(
            example,
            id=uuid7(),
            actor=Entity(id=f"user-{person}", type="user", name=_PEOPLE[person % len(_PEOPLE)]),
            scope=Entity(id=f"org-{organisation}", type="organization", name=organisation.title()),
            occurred_at=now - int(age) * NANOSECONDS - pick.randrange(NANOSECONDS),
            metadata={"region": pick.choice(_REGIONS)},
            success=pick.random() > 0.03,
            request=Request(id=f"req-{number // 3:06}") if pick.random() < 0.8 else None,
        )


def broken_records(schema_id: int, *, now: int, seed: int) -> list[BrokenRecord]:
    """Twenty-five records broken by hand, of seven kinds."""
    pick = random.Random(seed)  # noqa: S311 - test data, no secret
    valid = [encode(event, schema_id) for event in demo_events(25, now=now, seed=seed)]
    later = now + YEAR_SECONDS * NANOSECONDS
    kinds: list[tuple[str, list[bytes]]] = [
        ("truncated", [value[: pick.randrange(40, len(value) - 1)] for value in valid[0:4]]),
        ("garbage", [pick.randbytes(200) for _ in range(4)]),
        ("unknown schema id", [value[:1] + (999_999).to_bytes(4) + value[5:] for value in valid[4:8]]),
        ("bad UUID", [_altered(value, id="not-a-uuid-but-thirty-six-chars-long") for value in valid[8:12]]),
        ("action with capitals", [_altered(value, action="Context.Create") for value in valid[12:15]]),
        ("invalid JSON payload", [_altered(value, payload='{"name": ') for value in valid[15:18]]),
        ("far in the future", [_altered(value, occurred_at=later) for value in valid[18:21]]),
    ]
    return [BrokenRecord(kind, value) for kind, values in kinds for value in values]


def _altered(value: bytes, **fields: Any) -> bytes:
    """A record that the SDK would never write: valid Avro, but an invalid event."""
    schema = json.loads(SCHEMA_JSON)
    for field in schema["fields"]:
        if field["name"] in ("id", "occurred_at"):
            field["type"] = field["type"]["type"]
    schema_id, body = split(value)
    altered = io.BytesIO()
    fastavro.schemaless_writer(altered, fastavro.parse_schema(schema), decode_record(body) | fields)
    return join(schema_id, altered.getvalue())
