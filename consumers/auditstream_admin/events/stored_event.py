"""Events as the page and the API show them, made from rows of the log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from auditstream_admin.events.json_layout import laid_out
from auditstream_admin.events.statements import COLUMNS, WHOLE, Key
from auditstream_schemas.timestamp import format_timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownEntity:
    """An actor, a target or a scope.

    Attributes:
        id: Its id.
        type: Its type.
        name: Its name, or None.
        attributes: What else is known of it, sorted; empty in a list.
    """

    id: str
    type: str
    name: str | None
    attributes: Mapping[str, str]

    @property
    def label(self) -> str:
        """What people read: the name, or the id where there is none."""
        return self.name or self.id

    def members(self) -> dict[str, str]:
        """As an event's JSON has it."""
        own = {"id": self.id, "type": self.type}
        return {**own, **({} if self.name is None else {"name": self.name}), **self.attributes}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSummary:
    """An event in a list.

    Attributes:
        key: Where it stands.
        action: What happened.
        success: Whether it succeeded.
        actor: Who did it.
        target: What it was done to.
        scope: The account that owns the target, or None.
        request_id: Id of the request that caused it, or None.
    """

    key: Key
    action: str
    success: bool
    actor: ShownEntity
    target: ShownEntity
    scope: ShownEntity | None
    request_id: str | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> Self:
        """Make it from the `COLUMNS` of a row."""
        return cls(**_line(dict(zip(COLUMNS, row, strict=True))))

    @property
    def id(self) -> str:
        """Its id."""
        return self.key.id


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent(EventSummary):
    """All of an event, and where it came from.

    Attributes:
        payload: JSON text of one object, character for character what is stored.
        metadata: Strings by name, sorted.
        version: Version of the payload's schema.
        request_attributes: What else is known of the request.
        ingested_at: The sink's clock, milliseconds since the epoch.
        kafka_topic: Topic that it came on.
        kafka_topic_id: That topic's id.
        kafka_partition: Its partition.
        kafka_offset: Its offset there.
    """

    payload: str
    metadata: Mapping[str, str]
    version: int
    request_attributes: Mapping[str, str]
    ingested_at: int
    kafka_topic: str
    kafka_topic_id: str
    kafka_partition: int
    kafka_offset: int

    @classmethod
    def of(cls, row: Sequence[Any]) -> Self:
        """Make it from the `WHOLE` of a row."""
        found = dict(zip(WHOLE, row, strict=True))
        return cls(
            **_line(found),
            payload=found["payload"],
            metadata=_sorted(found["metadata"]),
            version=found["version"],
            request_attributes=_sorted(found["request.attributes"]),
            ingested_at=found["toUnixTimestamp64Milli(ingested_at)"],
            kafka_topic=found["kafka_topic"],
            kafka_topic_id=found["toString(kafka_topic_id)"],
            kafka_partition=found["kafka_partition"],
            kafka_offset=found["kafka_offset"],
        )

    def to_json(self) -> str:
        """The event as compact JSON, in the shape in which services emit it; the payload keeps its text."""
        parts = [
            f'"action":{_json(self.action)}',
            f'"actor":{_json(self.actor.members())}',
            f'"target":{_json(self.target.members())}',
            f'"payload":{self.payload}',
            f'"occurred_at":"{format_timestamp(self.key.occurred_at)}"',
            f'"metadata":{_json(self.metadata)}',
            f'"id":"{self.id}"',
            f'"version":{self.version}',
        ]
        if self.scope is not None:
            parts.append(f'"scope":{_json(self.scope.members())}')
        parts.append(f'"success":{_json(self.success)}')
        if self.request_id is not None:
            parts.append(f'"request":{_json({"id": self.request_id, **self.request_attributes})}')
        return "{" + ",".join(parts) + "}"

    def to_api_json(self) -> str:
        """The same, with the second clock and the place in Kafka behind."""
        stored = {
            "ingested_at": format_timestamp(self.ingested_at * 1_000_000),
            "kafka": {
                "topic": self.kafka_topic,
                "topic_id": self.kafka_topic_id,
                "partition": self.kafka_partition,
                "offset": self.kafka_offset,
            },
        }
        return f"{self.to_json()[:-1]},{_json(stored)[1:]}"

    def pretty_payload(self) -> str:
        """The payload with a line for each member; its texts and numbers are as they were written."""
        return laid_out(self.payload)


def _line(found: Mapping[str, Any]) -> dict[str, Any]:
    scope = _entity(found, "scope")
    return {
        "key": Key(
            occurred_at=found["toUnixTimestamp64Nano(occurred_at)"],
            id=found["toString(id)"],
            scope=found["scope.id"],
        ),
        "action": found["action"],
        "success": bool(found["success"]),
        "actor": _entity(found, "actor"),
        "target": _entity(found, "target"),
        "scope": scope if scope.id else None,
        "request_id": found["request.id"] or None,
    }


def _entity(found: Mapping[str, Any], name: str) -> ShownEntity:
    return ShownEntity(
        id=found[f"{name}.id"],
        type=found[f"{name}.type"],
        name=found[f"{name}.name"],
        attributes=_sorted(found.get(f"{name}.attributes", {})),
    )


def _sorted(strings: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(strings.items()))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
