"""Inserts events into ClickHouse without a sink, and makes awkward events to insert."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from auditstream_schemas.event import AuditEvent, Entity, Request
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import NANOSECONDS
from tests.support.events import START, make_event

_ABSENT_ENTITY: dict[str, object] = {"id": "", "type": "", "name": None, "attributes": {}}
_ABSENT_REQUEST: dict[str, object] = {"id": "", "attributes": {}}


def connect(settings: ClickHouseSettings) -> Client:
    """A connection for statements of a test."""
    return clickhouse_connect.get_client(dsn=settings.clickhouse_url, autogenerate_session_id=False)


TOPIC_ID = UUID(int=1)
"""The topic id of stored events."""


def store(
    settings: ClickHouseSettings,
    events: Iterable[AuditEvent],
    *,
    ingested_at: datetime | None = None,
    topic_id: UUID = TOPIC_ID,
    partition: int = 0,
    offsets: Sequence[int] | None = None,
    in_ledger: bool = True,
) -> None:
    """Insert events as rows of the event log, and a line of the ledger; blocks until they are visible.

    Args:
        settings: The database.
        events: The events, in order of offsets.
        ingested_at: Time of ingestion; now by default.
        topic_id: Topic id of the rows.
        partition: Partition of the rows.
        offsets: Offsets of the rows; by default the next offsets of the partition.
        in_ledger: Whether a line of the ledger is inserted, too.
    """
    moment = (ingested_at or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    database = settings.clickhouse_database
    with connect(settings) as client:
        coordinates = {"topic_id": str(topic_id), "partition": partition}
        if offsets is None:
            last = client.query(
                f"SELECT max(last_offset) + 1, count() FROM {database}.ledger "
                "WHERE topic_id = {topic_id:UUID} AND partition = {partition:Int32}",
                parameters=coordinates,
            ).result_rows[0]
            events = list(events)
            begin = last[0] if last[1] else 0
            offsets = range(begin, begin + len(events))
        rows = [
            _row(event, moment, offset) | {"kafka_topic_id": str(topic_id), "kafka_partition": partition}
            for event, offset in zip(events, offsets, strict=True)
        ]
        if not rows:
            return
        client.raw_insert(
            f"{database}.event_log",
            insert_block="\n".join(map(json.dumps, rows)),
            fmt="JSONEachRow",
            settings={"async_insert": 0, "max_partitions_per_insert_block": 0},
        )
        if in_ledger:
            client.command(
                f"INSERT INTO {database}.ledger (topic, topic_id, partition, first_offset, last_offset, read, stored, "
                "instance, fencing_time, written_at) SELECT 'audit.events', {topic_id:UUID}, {partition:Int32}, "
                "{first:Int64}, {last:Int64}, {rows:UInt64}, {rows:UInt64}, 'test', 1, now64(3)",
                parameters={**coordinates, "first": min(offsets), "last": max(offsets), "rows": len(rows)},
                use_database=False,
            )


def clear(settings: ClickHouseSettings) -> None:
    """Remove all events and all ledger lines."""
    with connect(settings) as client:
        for table in ("event_log", "ledger"):
            client.command(f"TRUNCATE TABLE {settings.clickhouse_database}.{table}", use_database=False)


def awkward_events() -> list[AuditEvent]:
    """Events that break exporters, in the order of an export."""
    oddities: list[dict[str, Any]] = [
        {"occurred_at": START, "payload": {}, "metadata": {}, "scope": None, "request": None},
        {"occurred_at": START + timedelta(milliseconds=500), "payload": {"lines": 'CR\rLF\nCRLF\r\nquote"comma,'}},
        {"actor": Entity(id='=1+1"', type="@user", name='+49, "Ann"\r\n-x', attributes={"-z": "=", "a,b": '"'})},
        {
            "target": Entity(
                id="ünïcödé", type="עברית", name="مرحبا", attributes={"emoji": "👩‍🚀", "nul": "\u2028\x01\x7f"}
            )
        },
        {"actor": Entity(id="x", type="user", name="")},
        {"actor": Entity(id="x", type="user", name=None)},
        {"scope": Entity(id="\\N", type="NULL", name="\\N", attributes={"b": "2", "a": "1", "B": "3", "é": "4"})},
        {"request": Request(id="/a/b\\c\t", attributes={"path": "C:\\x", "tab": "\t"})},
        {"metadata": {"": "", "k": " padded ", "line": "\r\n", "quote": '"\r\n"a'}},
        {"success": False, "version": 65_535, "action": "a.b-c.d_e.f9"},
    ]
    events = [make_event(number, **oddity) for number, oddity in enumerate(oddities)]
    text = (
        '{"big":123456789012345678901234567890,"e":1.10E+5,"k":1,"k":2,"u":"\\u00e9\\ud83d\\ude00\\/",'
        '"z":{"n":[[],{},null,-0]},"huge":9007199254740993,"raw":"👩‍🚀é\u2028"}'
    )
    base = events[0]
    for number, fraction in enumerate((1, 10, 123_456_789, 120_000_000, 999_999_999)):
        event = make_event(100 + number)
        events.append(
            AuditEvent(
                action=event.action,
                actor=event.actor,
                target=event.target,
                payload=text,
                occurred_at=base.occurred_at + NANOSECONDS + fraction,
                metadata=event.metadata,
                id=event.id,
                version=1,
                scope=None,
                success=True,
                request=None,
            )
        )
    # A UUID column sorts these three in the opposite order.
    for number, half in enumerate((0x1111_2222_3333_7444 << 64, 0x1111_2222_3333_7445 << 64, 0x2 << 124)):
        event_id = UUID(int=half + 0x8000_0000_0000_0009 - number)
        events.append(make_event(200, id=event_id, occurred_at=START + timedelta(days=1)))
    return sorted(events, key=lambda event: (event.occurred_at, str(event.id)))


def _row(event: AuditEvent, ingested_at: str, offset: int) -> dict[str, object]:
    seconds, fraction = divmod(event.occurred_at, NANOSECONDS)
    return {
        "action": event.action,
        "actor": _entity(event.actor),
        "target": _entity(event.target),
        "payload": event.payload,
        "occurred_at": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{fraction:09d}",
        "metadata": _backwards(event.metadata),
        "id": str(event.id),
        "version": event.version,
        "scope": _entity(event.scope) if event.scope else _ABSENT_ENTITY,
        "success": event.success,
        "request": {"id": event.request.id, "attributes": _backwards(event.request.attributes)}
        if event.request
        else _ABSENT_REQUEST,
        "content_hash": str(hash(event) & (2**64 - 1)),
        "ingested_at": ingested_at,
        "kafka_topic": "audit.events",
        "kafka_offset": offset,
    }


def _entity(entity: Entity) -> dict[str, object]:
    return {"id": entity.id, "type": entity.type, "name": entity.name, "attributes": _backwards(entity.attributes)}


def _backwards(strings: Mapping[str, str]) -> dict[str, str]:
    """In another order than that of an export."""
    return dict(reversed(list(strings.items())))
