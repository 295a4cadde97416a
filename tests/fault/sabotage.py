"""Sinks that are broken on purpose: the suite must find each of them out."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from auditstream_sink.clickhouse_writer import ClickHouseWriter
from auditstream_sink.dead_letters import DeadLetters
from auditstream_sink.statements import SinkStatements


def _swallow_insert() -> None:
    """One insert is skipped, and nobody reads back."""
    insert, read_back = ClickHouseWriter.insert, ClickHouseWriter.read_back
    calls: list[int] = []

    def skip_second(self: ClickHouseWriter, *, now: datetime, topic_id: UUID) -> None:
        calls.append(1)
        if len(calls) != 2:
            insert(self, now=now, topic_id=topic_id)

    def see_nothing(self: ClickHouseWriter, *, topic_id: UUID) -> tuple[int, int]:
        return 0, read_back(self, topic_id=topic_id)[1]

    ClickHouseWriter.insert = skip_second  # type: ignore[method-assign]
    ClickHouseWriter.read_back = see_nothing  # type: ignore[method-assign]


def _no_look_up() -> None:
    """What is stored already is not looked up."""
    judge = SinkStatements.judge

    def blind(self: SinkStatements) -> str:
        return _changed(judge(self), "WHERE id_key IN", "WHERE 0 AND id_key IN")

    SinkStatements.judge = blind  # type: ignore[method-assign]


def _lose_letters() -> None:
    """Refused records are dropped in silence."""

    def drop(_self: DeadLetters, _letters: Sequence[Any], **_named: Any) -> None:
        return None

    DeadLetters.send = drop  # type: ignore[method-assign, assignment]


def _garble() -> None:
    """Readers see something else than was sent."""
    insert = SinkStatements.insert

    def garbled(self: SinkStatements) -> str:
        return _changed(insert(self), "SELECT action,", "SELECT if(_offset % 50 = 49, 'some.thing', action),")

    SinkStatements.insert = garbled  # type: ignore[method-assign]


def _changed(statement: str, old: str, new: str) -> str:
    if old not in statement:
        raise LookupError(f"the statement has no {old!r} any more: mend the sabotage")
    return statement.replace(old, new)


SABOTAGES: dict[str, Callable[[], None]] = {
    "swallow-insert": _swallow_insert,
    "no-look-up": _no_look_up,
    "lose-letters": _lose_letters,
    "garble": _garble,
}
"""By name."""
