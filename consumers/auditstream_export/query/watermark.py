"""The watermark of an export: for every partition of every topic id, the last offset of the ledger.

The events up to a watermark never change. The sink writes an offset to the ledger only after it has read its rows
back; visible rows beyond the end of the ledger are not exported. If two sinks stored an event at once, from two
offsets, the view shows one of the offsets and the table ``copies`` has both. The event is exported if one of them is
below the watermark. A topic that was deleted and created again has another id. A dead letter that was sent again has
a new offset.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from auditstream_schemas.errors import ExportError

_MAX_PARTITION = 2**31 - 1
_MAX_OFFSET = 2**63 - 1
_STRUCTURE = 'a list of {"topic", "topic_id", "partition", "last_offset"}'


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """The end of the ledger of one partition.

    Attributes:
        topic: Name of the topic.
        topic_id: Id of the topic, assigned by the broker.
        partition: Kafka partition.
        last_offset: Last included offset.
    """

    topic: str
    topic_id: UUID
    partition: int
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """The offsets up to which events belong to an export.

    Attributes:
        positions: One for each partition in the ledger, sorted.
    """

    positions: tuple[Position, ...]

    @classmethod
    def from_json(cls, content: object) -> "Watermark":
        """Read the list that `to_dict` wrote, or a manifest with that list. Raises ExportError if it is malformed."""
        if isinstance(content, dict):
            content = content.get("watermark")
        if not isinstance(content, list):
            raise ExportError(f"the file has no watermark: expected a manifest, or {_STRUCTURE}")
        positions = tuple(sorted(map(_position, content)))
        if len({(position.topic_id, position.partition) for position in positions}) != len(positions):
            raise ExportError("the watermark names a partition twice")
        return cls(positions=positions)

    def to_dict(self) -> list[dict[str, object]]:
        """The positions as a list of objects, for the manifest."""
        return [{**asdict(position), "topic_id": str(position.topic_id)} for position in self.positions]

    def at_or_below(self, topic_id: str, partition: str, offset: str) -> str:
        """The SQL condition that the coordinates in these columns are at or below the watermark."""
        branches = [
            f"{topic_id} = {{topic_id_{number}:UUID}}, transform({partition}, {{partitions_{number}:Array(Int32)}}, "
            f"{{offsets_{number}:Array(Int64)}}, toInt64(-1))"
            for number in range(len(self._by_topic()))
        ]
        return f"{offset} <= multiIf({', '.join(branches)}, toInt64(-1))" if branches else "false"

    def parameters(self) -> dict[str, object]:
        """The server-side parameters of that condition."""
        parameters: dict[str, object] = {}
        for number, (topic_id, positions) in enumerate(self._by_topic().items()):
            parameters[f"topic_id_{number}"] = str(topic_id)
            parameters[f"partitions_{number}"] = [position.partition for position in positions]
            parameters[f"offsets_{number}"] = [position.last_offset for position in positions]
        return parameters

    def _by_topic(self) -> Mapping[UUID, Sequence[Position]]:
        topics: dict[UUID, list[Position]] = {}
        for position in self.positions:
            topics.setdefault(position.topic_id, []).append(position)
        return topics


def _position(entry: Any) -> Position:
    malformed = f"the watermark has an entry {str(entry)[:80]!r}: expected {_STRUCTURE}"
    try:
        topic, topic_id = entry["topic"], UUID(entry["topic_id"])
        partition, last_offset = entry["partition"], entry["last_offset"]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ExportError(malformed) from error
    numbers = ((partition, _MAX_PARTITION), (last_offset, _MAX_OFFSET))
    if not isinstance(topic, str) or not all(type(n) is int and 0 <= n <= limit for n, limit in numbers):
        raise ExportError(malformed)
    return Position(topic=topic, topic_id=topic_id, partition=partition, last_offset=last_offset)
