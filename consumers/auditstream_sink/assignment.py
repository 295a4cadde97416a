"""The partitions of this sink: which it has, which it can read already, and from where.

A partition that the group has assigned is unpositioned: nothing is read from it. Once the end of its ledger is known it
is positioned, and the topic is read from one past that end. It is gone when it was revoked, or lost to another sink. A
reset makes every positioned partition unpositioned, so that it is read again from the end of its ledger.
"""

from collections.abc import Iterable, Mapping
from uuid import UUID

from auditstream_storage import LedgerEnd


class Assignment:
    """The state of this sink's partitions. Belongs to the loop's thread; blocks on nothing.

    Attributes:
        fencing_time: When partitions were last positioned, by ClickHouse's clock, nanoseconds since 1970.
        next_offsets: By positioned partition, the next offset to add to a batch; ``BatchBuilder.add`` advances it.
        at_end: Positioned partitions that were read to their end.
        ledger_ends: By positioned partition; the writer of a batch advances it. A reset makes a new one, so that a
            cancelled batch cannot change it.
        must_seek: Whether the consumer has to be moved to ``next_offsets`` before a fetched record may be added.
    """

    def __init__(self) -> None:
        self.topic_id = UUID(int=0)
        self.fencing_time = 0
        self.unpositioned: set[int] = set()
        self.next_offsets: dict[int, int] = {}
        self.at_end: set[int] = set()
        self.ledger_ends: dict[int, LedgerEnd] = {}
        self.must_seek = False

    def __len__(self) -> int:
        return len(self.next_offsets) + len(self.unpositioned)

    @property
    def is_at_end(self) -> bool:
        """Whether all partitions were read to their end; false while there are none, or an unpositioned one."""
        return not self.unpositioned and bool(self.next_offsets) and self.at_end.issuperset(self.next_offsets)

    def assigned(self, partitions: Iterable[int]) -> None:
        """The group gave partitions to this sink."""
        self.unpositioned.update(partitions)

    def gone(self, partitions: Iterable[int]) -> None:
        """The group took partitions away, or gave them to another sink already."""
        for partition in partitions:
            self.next_offsets.pop(partition, None)
            self.unpositioned.discard(partition)
        self.must_seek = True

    def positioned(self, topic_id: UUID, fencing_time: int, ledger_ends: Mapping[int, LedgerEnd]) -> bool:
        """Position partitions at the ends of their ledgers; False if one of them is gone since these were looked up.

        If the topic ``is_other_topic``, call ``reset`` first.
        """
        if not self.unpositioned.issuperset(ledger_ends):
            return False
        self.topic_id, self.fencing_time = topic_id, fencing_time
        self.unpositioned.difference_update(ledger_ends)
        self.ledger_ends.update(ledger_ends)
        self.next_offsets.update({partition: ledger.end + 1 for partition, ledger in ledger_ends.items()})
        self.must_seek = True
        return True

    def is_other_topic(self, topic_id: UUID) -> bool:
        """Whether partitions are read under another id: the topic was deleted and created again."""
        return bool(self.next_offsets) and topic_id != self.topic_id

    def reset(self) -> None:
        """Make every positioned partition unpositioned: its offsets since the end of its ledger are read again."""
        self.unpositioned.update(self.next_offsets)
        self.next_offsets.clear()
        self.ledger_ends = {}
        self.must_seek = True

    def sought(self) -> None:
        """The consumer was moved to ``next_offsets``."""
        self.must_seek = False
        self.at_end.clear()
