"""How far into the books an export goes: for every partition of every topic id, the last offset of the ledger.

What a watermark takes in never changes. An offset is in the books once its rows were read back, and rows beyond
the books' end do not belong, though they may be visible. An event counts by where it came from: where two
sinks stored it at once, from two places, the view shows either place and the table ``copies`` has both; one of
them below the watermark is enough. A topic created anew has another id, so its offsets are others; an event that
was sent again out of the dead letters has a new offset.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from auditstream_schemas.errors import ExportError

_PARTITIONS_AT_MOST = 2**31
_OFFSETS_AT_MOST = 2**63
_SHAPE = 'a list of {"topic", "topic_id", "partition", "last_offset"}'


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """Where the books of one partition end.

    Attributes:
        topic: Name of the topic.
        topic_id: The id that the broker gave it.
        partition: Kafka partition.
        last_offset: The last offset that belongs, inclusive.
    """

    topic: str
    topic_id: UUID
    partition: int
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """Up to which offsets events belong to an export.

    Attributes:
        positions: One for each partition that had books, sorted.
    """

    positions: tuple[Position, ...]

    @classmethod
    def from_json(cls, found: object) -> "Watermark":
        """Read what `described` wrote, or a manifest that holds it.

        Raises:
            ExportError: It is something else.
        """
        if isinstance(found, dict):
            found = found.get("watermark")
        if not isinstance(found, list):
            raise ExportError(f"there is no watermark in it: expected a manifest, or {_SHAPE}")
        positions = tuple(sorted(_position(each) for each in found))
        if len({(each.topic_id, each.partition) for each in positions}) != len(positions):
            raise ExportError("the watermark names a partition twice")
        return cls(positions=positions)

    def to_dict(self) -> list[dict[str, object]]:
        """The positions, for the manifest."""
        return [
            {
                "topic": each.topic,
                "topic_id": str(each.topic_id),
                "partition": each.partition,
                "last_offset": each.last_offset,
            }
            for each in self.positions
        ]

    def at_or_below(self, topic_id: str, partition: str, offset: str) -> str:
        """The SQL condition that a place is at or below the watermark.

        Args:
            topic_id: The column of the topic's id.
            partition: The column of the partition.
            offset: The column of the offset.
        """
        branches = [
            f"{topic_id} = {{topic_id_{number}:UUID}}, transform({partition}, {{partitions_{number}:Array(Int32)}}, "
            f"{{offsets_{number}:Array(Int64)}}, toInt64(-1))"
            for number in range(len(self._by_topic()))
        ]
        return f"{offset} <= multiIf({', '.join(branches)}, toInt64(-1))" if branches else "false"

    def parameters(self) -> dict[str, object]:
        """The server-side parameters of that condition."""
        found: dict[str, object] = {}
        for number, (topic_id, positions) in enumerate(self._by_topic().items()):
            found[f"topic_id_{number}"] = str(topic_id)
            found[f"partitions_{number}"] = [each.partition for each in positions]
            found[f"offsets_{number}"] = [each.last_offset for each in positions]
        return found

    def _by_topic(self) -> Mapping[UUID, Sequence[Position]]:
        found: dict[UUID, list[Position]] = {}
        for each in self.positions:
            found.setdefault(each.topic_id, []).append(each)
        return found


def _position(found: Any) -> Position:
    try:
        position = Position(
            topic=found["topic"],
            topic_id=UUID(found["topic_id"]),
            partition=found["partition"],
            last_offset=found["last_offset"],
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ExportError(f"the watermark has an entry {str(found)[:80]!r}: expected {_SHAPE}") from error
    numbers = ((position.partition, _PARTITIONS_AT_MOST), (position.last_offset, _OFFSETS_AT_MOST))
    if not isinstance(position.topic, str) or not all(type(n) is int and 0 <= n < most for n, most in numbers):
        raise ExportError(f"the watermark has an entry {str(found)[:80]!r}: expected {_SHAPE}")
    return position
