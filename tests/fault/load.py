"""The records of a schedule: valid events, second deliveries, other content under a known id, and broken records.

Every record has a number in a header, so that it can be recognised on the topic and among the dead letters, whatever
its bytes are.
"""

import hashlib
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from auditstream_ops.demo_events import broken_records
from auditstream_schemas.avro_body import varint
from auditstream_schemas.codec import encode, encode_body
from auditstream_schemas.event import AuditEvent, Entity, Request
from auditstream_schemas.timestamp import NANOSECONDS
from tests.support.events import make_event

Fate = Literal["event", "invalid", "expired"]

NUMBER = "number"
"""Header that carries a record's number."""

HOUR = 3_600 * NANOSECONDS
DAY = 24 * HOUR

CANONICAL = """concat(action, '|', actor.id, '|', ifNull(actor.name, ''), '|', target.id, '|', payload, '|',
    toString(toUnixTimestamp64Nano(occurred_at)), '|', metadata['region'], '|', scope_id, '|',
    if(success, 'yes', 'no'), '|', request.id)"""
"""A visible row's own fields as one text, in SQL; `canonical` gives the same of an event."""

_PLACEHOLDER = "10000000"
_TEMPLATES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Shares of the kinds of records, relative to the valid events that are sent once.

    Attributes:
        again: Sent again on the same partition.
        elsewhere: Sent again on another partition.
        at_once: Sent on two partitions at once.
        conflicts: Followed by other content under the same id on the same partition.
        races: Sent on two partitions at once, with other content on each.
        poison: Broken records.
        expired: Older than the retention.
        skewed: With the time of a wrong clock, within the accepted range.
        skew_days: How many days that clock may be behind.
    """

    again: float = 0.05
    elsewhere: float = 0.03
    at_once: float = 0.02
    conflicts: float = 0.01
    races: float = 0.002
    poison: float = 0.015
    expired: float = 0.005
    skewed: float = 0.03
    skew_days: int = 2


@dataclass(slots=True, kw_only=True, eq=False)
class LoadRecord:
    """One record to send, and the broker's answers. No part under test uses this.

    Attributes:
        number: Unique in the schedule.
        fate: Its expected status; a second delivery is an event.
        identity: The event's id; empty for a broken record.
        digest: Digest of the content that a reader must see.
        value: Its bytes.
        partition: Its partition.
        is_late: Whether it is sent in the aftermath, when all others are in the ledger.
        acked: Acknowledged coordinates: incarnation of the topic, partition, offset.
        failures: Errors of the broker; it may have stored the record nevertheless.
    """

    number: int
    fate: Fate
    identity: str
    digest: str
    value: bytes
    partition: int
    is_late: bool = False
    acked: list[tuple[int, int, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def canonical(event: AuditEvent) -> str:
    """An event's own fields as one text."""
    return "|".join(
        (
            event.action,
            event.actor.id,
            event.actor.name or "",
            event.target.id,
            event.payload,
            str(event.occurred_at),
            event.metadata.get("region", ""),
            event.scope.id if event.scope else "",
            "yes" if event.success else "no",
            event.request.id if event.request else "",
        )
    )


def digest(text: str) -> str:
    """A hash of a content; ClickHouse computes the same."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class _Template:
    """An event that is encoded once; thousands are made of it by replacing id, time and number."""

    def __init__(self, event: AuditEvent, schema_id: int) -> None:
        self.event = event
        body = encode_body(event)
        self._rest = body[37 + len(varint(event.occurred_at)) :]
        self._text = canonical(event)
        self._time = str(event.occurred_at)
        self._front = b"\0" + schema_id.to_bytes(4) + body[:1]

    def make(self, identity: str, occurred_at: int, number: int) -> tuple[bytes, str]:
        """Bytes and digest of the event of this id, time and number."""
        mark = f"{number + 10_000_000}"
        rest = self._rest.replace(_PLACEHOLDER.encode(), mark.encode())
        text = self._text.replace(_PLACEHOLDER, mark).replace(self._time, str(occurred_at))
        return self._front + identity.encode() + varint(occurred_at) + rest, digest(text)


class FaultLoad:
    """Makes the records of a schedule, the same for the same seed but for their times.

    Args:
        pick: Random source.
        mix: Shares of the kinds of records.
        events: How many valid events are sent once, at least.
        partitions: Partitions of the topic.
        schema_id: The writer's schema.
        now: Nanoseconds since 1970.
    """

    def __init__(self, pick: random.Random, mix: Mix, events: int, partitions: int, schema_id: int, now: int) -> None:
        self._pick = pick
        self._mix = mix
        self._events = events
        self._partitions = partitions
        self._schema_id = schema_id
        self._now = now
        self._templates = [_Template(event, schema_id) for event in _template_events(pick)]
        self._poison = [record.value for record in broken_records(schema_id, now=now, seed=pick.randrange(10**6))]
        self.records: list[LoadRecord] = []
        self._firsts: list[tuple[LoadRecord, AuditEvent, int]] = []

    def storm(self) -> list[LoadRecord]:
        """The records that are sent while the faults happen, in order."""
        chances = (
            (self._mix.again, self._again),
            (self._mix.elsewhere, self._elsewhere),
            (self._mix.at_once, self._at_once),
            (self._mix.conflicts, self._conflict),
            (self._mix.races, self._race),
            (self._mix.poison, self._broken),
            (self._mix.expired, self._expired),
        )
        for _ in range(self._events):
            self._first()
            for chance, make in chances:
                if self._pick.random() < chance:
                    make()
        return list(self.records)

    def aftermath(self, share: float) -> list[LoadRecord]:
        """Late second deliveries and other content: on the same partition, on another, or on two."""
        before = len(self.records)
        for first, event, number in self._pick.sample(self._firsts, max(8, int(len(self._firsts) * share))):
            others = self._others(first.partition)
            where = self._pick.choice(([first.partition], [self._pick.choice(others)], [first.partition, others[-1]]))
            for partition in where:
                self._add(replace(first, partition=partition), is_late=True)
            if self._pick.random() < 0.2:
                other = self._altered(event, first, number)
                for partition in where:
                    self._add(replace(other, partition=partition), is_late=True)
        return self.records[before:]

    def _first(self) -> LoadRecord:
        number = len(self._firsts)
        template = self._pick.choice(self._templates)
        occurred_at = self._now - self._pick.randrange(HOUR)
        if self._pick.random() < self._mix.skewed:
            occurred_at += self._pick.randrange(-self._mix.skew_days * DAY, 10 * HOUR)
        identity = _uuid7(self._pick, self._now // 1_000_000 + number // 100)
        value, digest = template.make(identity, occurred_at, number)
        record = self._add(
            LoadRecord(
                number=0,
                fate="event",
                identity=identity,
                digest=digest,
                value=value,
                partition=self._pick.randrange(self._partitions),
            )
        )
        self._firsts.append((record, replace(template.event, occurred_at=occurred_at), number))
        return record

    def _again(self) -> None:
        first, _event, _number = self._earlier()
        self._add(replace(first))

    def _elsewhere(self) -> None:
        first, _event, _number = self._earlier()
        self._add(replace(first, partition=self._pick.choice(self._others(first.partition))))

    def _at_once(self) -> None:
        first = self._first()
        self._add(replace(first, partition=self._others(first.partition)[0]))

    def _conflict(self) -> None:
        first, event, number = self._earlier()
        self._add(self._altered(event, first, number))

    def _race(self) -> None:
        first = self._first()
        _, event, number = self._firsts[-1]
        other = self._altered(event, first, number)
        self._add(replace(other, partition=self._others(first.partition)[0]))

    def _broken(self) -> None:
        value = self._pick.choice(self._poison)
        if self._pick.random() < 0.3:
            value = self._templates[0].make(_uuid7(self._pick, 1), self._now, 7)[0] + b"trailing"
        self._refused("invalid", value)

    def _expired(self) -> None:
        template = self._pick.choice(self._templates)
        age = 370 * DAY + self._pick.randrange(300 * DAY)
        self._refused("expired", template.make(_uuid7(self._pick, 1), self._now - age, 7)[0])

    def _refused(self, fate: Fate, value: bytes) -> None:
        partition = self._pick.randrange(self._partitions)
        self._add(LoadRecord(number=0, fate=fate, identity="", digest="", value=value, partition=partition))

    def _earlier(self) -> tuple[LoadRecord, AuditEvent, int]:
        """One of the events so far, mostly a recent one."""
        count = len(self._firsts)
        if self._pick.random() < 0.7:
            return self._firsts[self._pick.randrange(max(0, count - 500), count)]
        return self._firsts[self._pick.randrange(count)]

    def _others(self, partition: int) -> list[int]:
        others = [other for other in range(self._partitions) if other != partition]
        self._pick.shuffle(others)
        return others or [partition]

    def _altered(self, event: AuditEvent, first: LoadRecord, number: int) -> LoadRecord:
        """Another event under the same id: one field differs."""
        payload = event.payload.replace(_PLACEHOLDER, f"{number + 10_000_000}")
        event = replace(event, id=uuid.UUID(first.identity), payload=payload)
        changes: list[AuditEvent] = [
            replace(event, success=not event.success),
            replace(event, occurred_at=event.occurred_at - 1),
            replace(event, occurred_at=event.occurred_at - 40 * DAY),
            replace(event, scope=None),
            replace(event, actor=replace(event.actor, name="Somebody else")),
            replace(event, metadata={"region": "elsewhere"}),
            replace(event, payload=payload.replace('"number"', '"other"')),
        ]
        other = self._pick.choice(changes)
        return replace(first, digest=digest(canonical(other)), value=encode(other, self._schema_id))

    def _add(self, record: LoadRecord, *, is_late: bool = False) -> LoadRecord:
        fresh = replace(record, number=len(self.records), is_late=is_late, acked=[], failures=[])
        self.records.append(fresh)
        return fresh


def _template_events(pick: random.Random) -> Iterator[AuditEvent]:
    for _ in range(_TEMPLATES):
        plain = make_event(pick.randrange(10_000))
        scope = f"org-{pick.randrange(50)}"
        yield replace(
            plain,
            payload=f'{{"number":{_PLACEHOLDER},"note":"{"x" * pick.randrange(60)}"}}',
            # A value that cannot be the time of another event, because it is replaced in the text.
            occurred_at=1_600_000_000_000_000_007,
            scope=None if pick.random() < 0.1 else Entity(id=scope, type="organization", name=scope.title()),
            request=None if pick.random() < 0.2 else Request(id=f"request-{pick.randrange(1000)}"),
        )


def _uuid7(pick: random.Random, milliseconds: int) -> str:
    bits = pick.getrandbits(74)
    number = (milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | (bits >> 62) << 64 | 0b10 << 62 | (bits & (1 << 62) - 1)
    return str(uuid.UUID(int=number))
