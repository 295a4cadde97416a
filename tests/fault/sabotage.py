"""Sinks that are broken on purpose: the suite must detect each of them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from auditstream_sink.batch import RefusedRecord
from auditstream_sink.clickhouse_writer import ClickHouseWriter
from auditstream_sink.dead_letters import DeadLetters
from auditstream_sink.statements import SinkStatements


class SkippingWriter(ClickHouseWriter):
    """Skips the second insert of the process, and its read-back finds nothing missing."""

    _inserts = itertools.count(1)

    def insert(self, *, now: datetime, topic_id: UUID) -> None:
        if next(self._inserts) != 2:
            super().insert(now=now, topic_id=topic_id)

    def read_back(self, *, topic_id: UUID) -> tuple[int, int]:
        return 0, super().read_back(topic_id=topic_id)[1]


class BlindStatements(SinkStatements):
    """Does not look stored events up."""

    def classify(self) -> str:
        return _changed(super().classify(), "WHERE id_key IN", "WHERE 0 AND id_key IN")


class BlindWriter(ClickHouseWriter):
    statements = BlindStatements


class LostDeadLetters(DeadLetters):
    """Drops refused records."""

    def send(self, refused: Sequence[RefusedRecord], *, topic_id: UUID) -> None:
        pass


class GarblingStatements(SinkStatements):
    """Stores another action than was sent."""

    def insert(self) -> str:
        return _changed(super().insert(), "SELECT action,", "SELECT if(_offset % 50 = 49, 'some.thing', action),")


class GarblingWriter(ClickHouseWriter):
    statements = GarblingStatements


def _changed(statement: str, old: str, new: str) -> str:
    if old not in statement:
        raise LookupError(f"the statement does not contain {old!r} any more: repair the sabotage")
    return statement.replace(old, new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """Classes that a sink uses instead of its own.

    Attributes:
        clickhouse: For its statements.
        dead_letters: For its dead letters.
    """

    clickhouse: type[ClickHouseWriter] = ClickHouseWriter
    dead_letters: type[DeadLetters] = DeadLetters


SABOTAGES = {
    "swallow-insert": Sabotage(clickhouse=SkippingWriter),
    "no-look-up": Sabotage(clickhouse=BlindWriter),
    "lose-dead-letters": Sabotage(dead_letters=LostDeadLetters),
    "garble": Sabotage(clickhouse=GarblingWriter),
}
"""By name."""
