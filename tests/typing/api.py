"""The intended use of the public API. Checked by mypy, never run."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_type
from uuid import UUID

from auditstream_export import ExportFilter, ExportRequest, ExportResult, OutputFormat, Watermark, export_events
from auditstream_export.verify import Verification, verify_export
from auditstream_producer import AuditProducer, DeliveryFailure, EventEmitter, ProducerSettings, ProducerStats
from auditstream_producer.testing import CapturingProducer
from auditstream_schemas import (
    AuditEvent,
    Entity,
    FieldError,
    InvalidEventError,
    Request,
    format_timestamp,
    parse_timestamp,
)
from auditstream_schemas.catalog import CatalogEntry, catalog, validate_payload
from auditstream_schemas.codec import SCHEMA_JSON, decode, decode_body, decode_record, encode, encode_body, split
from auditstream_schemas.settings import ClickHouseSettings

# An event is built of values, of mappings, or of both.
event = AuditEvent.build(
    action="context.create",
    actor=Entity(id="user-1", type="user", name="Zoë", attributes={"ip": "192.0.2.1"}),
    target={"id": "context-1", "type": "context"},
    id="019b76da-a800-7000-8000-0123456789ab",
    occurred_at=datetime.now(UTC),
    payload={"name": "production", "group_ids": [1, 2.5, None, {"nested": True}]},
    metadata={"region": "eu-central-1"},
    scope=Entity(id="org-1", type="organization"),
    success=False,
    request=Request(id="request-1", attributes={"ip": "192.0.2.1"}),
)

# Arguments without a default are required, and every argument has a type.
AuditEvent.build(action="a.b", actor={}, target={}, id=UUID(int=1))  # type: ignore[call-arg]
AuditEvent.build(action="a.b", actor="user-1", target={}, id=UUID(int=1), occurred_at=0)  # type: ignore[arg-type]
AuditEvent.build(action="a.b", actor={}, target={}, id=1, occurred_at=0)  # type: ignore[arg-type]
AuditEvent.build(action="a.b", actor={}, target={}, id=UUID(int=1), occurred_at=0.5)  # type: ignore[arg-type]
Entity(id="user-1")  # type: ignore[call-arg]
Entity("user-1", "user")  # type: ignore[call-arg]

assert_type(event.action, str)
assert_type(event.actor, Entity)
assert_type(event.actor.name, str | None)
assert_type(event.actor.attributes, Mapping[str, str])
assert_type(event.payload, str)
assert_type(event.occurred_at, int)
assert_type(event.metadata, Mapping[str, str])
assert_type(event.id, UUID)
assert_type(event.version, int)
assert_type(event.scope, Entity | None)
assert_type(event.success, bool)
assert_type(event.request, Request | None)

# It is immutable.
event.action = "context.delete"  # type: ignore[misc]
event.metadata["region"] = "us"  # type: ignore[index]

# JSON and back.
assert_type(event.to_json(), str)
assert_type(AuditEvent.from_json(event.to_json()), AuditEvent)
assert_type(AuditEvent.from_json(b"{}", defaults={"version": 1}), AuditEvent)

# One error has every field at fault.
try:
    AuditEvent.from_json("{}")
except InvalidEventError as error:
    assert_type(error.errors, tuple[FieldError, ...])

# Times.
assert_type(parse_timestamp("2025-11-03T08:15:30.123456789Z"), int)
assert_type(format_timestamp(event.occurred_at), str)

# The wire.
message = encode(event, 1)
assert_type(message, bytes)
assert_type(encode_body(event), bytes)
assert_type(split(message), tuple[int, bytes])
assert_type(decode(message), AuditEvent)
assert_type(decode_body(encode_body(event), SCHEMA_JSON), AuditEvent)
decode_record(encode_body(event))["occurred_at"]

# The catalog.
assert_type(catalog(), Mapping[str, CatalogEntry])
assert_type(validate_payload(event, strict=True), None)


# The producer: emits values or an event, and reports failures.
def on_error(failure: DeliveryFailure) -> None:
    assert_type(failure.event_id, UUID)
    assert_type(failure.event, AuditEvent)
    assert_type(failure.reason, str)
    assert_type(failure.tag, object)


with AuditProducer(ProducerSettings(catalog_mode="strict"), on_error=on_error) as producer:
    assert_type(producer, AuditProducer)
    assert_type(producer.emit(action="a.b", actor={"id": "1", "type": "user"}, target=event.target), UUID)
    assert_type(producer.emit_event(event, tag="mine"), UUID)
    assert_type(producer.flush(1.0), int)
    assert_type(producer.stats(), ProducerStats)
    producer.emit("a.b", {}, {})  # type: ignore[call-arg]
    producer.emit(action="a.b", actor={})  # type: ignore[call-arg]
ProducerSettings(catalog_mode="sometimes")  # type: ignore[arg-type]
assert_type(AuditProducer.from_env(on_error=on_error), AuditProducer)

# Its replacement in the tests of services.
emitter: EventEmitter = CapturingProducer(queue_events=1)
assert_type(CapturingProducer().events, list[AuditEvent])

# Exports: to a path or to a bucket, up to a watermark.
wanted = ExportRequest(start=0, end=1, filter=ExportFilter(actions=("project.*",), scope="org-7"))
exported = export_events(
    ClickHouseSettings(), wanted, Path("january.csv.gz"), output_format=OutputFormat(split_rows=1_000_000)
)
assert_type(exported, ExportResult)
export_events(ClickHouseSettings(), wanted, "s3://audit/january.ndjson", watermark=exported.watermark, resume=True)
assert_type(Watermark.from_json({"watermark": []}), Watermark)
assert_type(verify_export(Path("january.csv.gz"), trusted_ids=("51e3",)), Verification)
OutputFormat(format="xml")  # type: ignore[arg-type]
ExportRequest(start=0)  # type: ignore[call-arg]
