"""Cursors: where a page ends, signed. One of another viewer, of another filter, or of one's own making is refused.

What a reader of a sequence of pages is promised: the first page fixes the range of time and a bound, the moment of its
query; every event that was visible then, and that a sink had dated by then, is on just one page. Events that come later
are on none of them, also where they happened within the range: ``occurred_at`` is the emitter's clock, so they may
belong between rows that were shown already. (One that a sink dated before the bound and stored after it may be on a
page that was not read yet; it is on no page twice.) The first page, asked for anew, shows them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from itsdangerous import BadData, URLSafeSerializer

from auditstream_admin.auth.signing import signed
from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.statements import Key, Offsets
from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.errors import FilterError

Direction = Literal["older", "newer"]
_DIRECTIONS: tuple[Direction, ...] = ("older", "newer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where a page begins.

    Attributes:
        direction: Which way it goes on from the key.
        key: The last event of the page before, in that direction.
        span: The range of time, fixed by the first page.
        bound: Latest ``ingested_at`` of the sequence, milliseconds since the epoch, fixed by the first page.
    """

    direction: Direction
    key: Key
    span: TimeSpan
    bound: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TailMark:
    """How far the live tail has come.

    Attributes:
        offsets: How far each partition has been shown.
        not_before: Earliest ``ingested_at`` of what is still to be looked at, milliseconds since the epoch.
    """

    offsets: tuple[Offsets, ...]
    not_before: int


class Cursors:
    """Writes and reads cursors."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def write(self, cursor: Cursor, viewer: Viewer, wanted: EventFilter) -> str:
        """The cursor as text for a URL."""
        return self._text(
            "cursor",
            viewer,
            wanted,
            [
                _DIRECTIONS.index(cursor.direction),
                *(cursor.key.occurred_at, cursor.key.id),
                *(cursor.span.start, cursor.span.end, cursor.bound),
            ],
        )

    def read(self, text: str, viewer: Viewer, wanted: EventFilter) -> Cursor:
        """Read a cursor that was written for this viewer and this filter.

        Raises:
            FilterError: It was not.
        """
        direction, time, id, start, end, bound = self._values("cursor", text, viewer, wanted)
        return Cursor(
            direction=_DIRECTIONS[direction],
            key=Key(occurred_at=time, id=id),
            span=TimeSpan(start=start, end=end),
            bound=bound,
        )

    def write_mark(self, mark: TailMark, viewer: Viewer, wanted: EventFilter) -> str:
        """The mark of a live tail as text for a URL."""
        offsets = [(one.topic_id, one.partition, one.offset) for one in mark.offsets]
        return self._text("tail", viewer, wanted, [mark.not_before, offsets])

    def read_mark(self, text: str, viewer: Viewer, wanted: EventFilter) -> TailMark:
        """Read a mark that was written for this viewer and this filter.

        Raises:
            FilterError: It was not.
        """
        not_before, offsets = self._values("tail", text, viewer, wanted)
        return TailMark(
            not_before=not_before,
            offsets=tuple(
                Offsets(topic_id=topic_id, partition=partition, offset=offset)
                for topic_id, partition, offset in offsets
            ),
        )

    def _text(self, kind: str, viewer: Viewer, wanted: EventFilter, values: Sequence[object]) -> str:
        return str(self._serializer(kind, viewer, wanted).dumps(values))

    def _values(self, kind: str, text: str, viewer: Viewer, wanted: EventFilter) -> list[Any]:
        try:
            found: list[Any] = self._serializer(kind, viewer, wanted).loads(text)
        except BadData:
            raise FilterError(kind, "not made here for you and this filter: begin at the first page") from None
        return found

    def _serializer(self, kind: str, viewer: Viewer, wanted: EventFilter) -> URLSafeSerializer:
        """What a cursor is for is part of what is signed, not of its text."""
        context = [kind, viewer.subject, viewer.role, *viewer.scopes, wanted.with_(zone="UTC").query()]
        return signed(self._secret, "\0".join(context))
