"""Events for the page and the API, made from rows of the event log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from auditstream_admin.events.statements import COLUMNS, WHOLE, Key
from auditstream_schemas.timestamp import format_timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityView:
    """An actor, a target or a scope; ``attributes`` is sorted, and empty in a list."""

    id: str
    type: str
    name: str | None
    attributes: Mapping[str, str]

    @property
    def label(self) -> str:
        """The name, or the id if there is no name."""
        return self.name or self.id

    def members(self) -> dict[str, str]:
        """The members of the JSON object in an event."""
        name = {} if self.name is None else {"name": self.name}
        return {"id": self.id, "type": self.type, **name, **self.attributes}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSummary:
    """An event in a list; ``key`` is its position in the list: time and id."""

    key: Key
    action: str
    success: bool
    actor: EntityView
    target: EntityView
    scope: EntityView | None
    request_id: str | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> Self:
        """Make it from a row of `COLUMNS`."""
        return cls(**_summary(dict(zip(COLUMNS, row, strict=True))))

    @property
    def id(self) -> str:
        """Its id."""
        return self.key.id


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent(EventSummary):
    """A complete event with its Kafka coordinates.

    Attributes:
        payload: JSON text of one object, exactly as stored.
        ingested_at: Time by the sink's clock, milliseconds since the epoch.
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
        """Make it from a row of `WHOLE`."""
        values = dict(zip(WHOLE, row, strict=True))
        return cls(
            **_summary(values),
            **{name: values[name] for name in ("payload", "version", "kafka_topic", "kafka_partition", "kafka_offset")},
            metadata=_sorted(values["metadata"]),
            request_attributes=_sorted(values["request.attributes"]),
            ingested_at=values["toUnixTimestamp64Milli(ingested_at)"],
            kafka_topic_id=values["toString(kafka_topic_id)"],
        )

    def to_json(self) -> str:
        """The event as compact JSON, as services emit it; the text of the payload is unchanged."""
        request = {"id": self.request_id, **self.request_attributes}
        members = {
            "action": _json(self.action),
            "actor": _json(self.actor.members()),
            "target": _json(self.target.members()),
            "payload": self.payload,
            "occurred_at": _json(format_timestamp(self.key.occurred_at)),
            "metadata": _json(self.metadata),
            "id": _json(self.id),
            "version": _json(self.version),
            "scope": None if self.scope is None else _json(self.scope.members()),
            "success": _json(self.success),
            "request": None if self.request_id is None else _json(request),
        }
        return "{" + ",".join(f'"{name}":{text}' for name, text in members.items() if text is not None) + "}"

    def to_api_json(self) -> str:
        """The event as compact JSON, followed by ``ingested_at`` and the Kafka coordinates."""
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


def _summary(values: Mapping[str, Any]) -> dict[str, Any]:
    scope = _entity(values, "scope")
    return {
        "key": Key(
            occurred_at=values["toUnixTimestamp64Nano(occurred_at)"],
            id=values["toString(id)"],
            scope=values["scope.id"],
        ),
        "action": values["action"],
        "success": bool(values["success"]),
        "actor": _entity(values, "actor"),
        "target": _entity(values, "target"),
        "scope": scope if scope.id else None,
        "request_id": values["request.id"] or None,
    }


def _entity(values: Mapping[str, Any], name: str) -> EntityView:
    return EntityView(
        id=values[f"{name}.id"],
        type=values[f"{name}.type"],
        name=values[f"{name}.name"],
        attributes=_sorted(values.get(f"{name}.attributes", {})),
    )


def _sorted(strings: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(strings.items()))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
