"""Signed cursors for pagination and for the live tail.

The first page fixes the time range and a bound, the time of its query. Every event that was visible at that time and
has ``ingested_at`` up to the bound is on exactly one page. Events that arrive later are on none of these pages, even if
they occurred within the range: ``occurred_at`` comes from the emitter's clock, so they could belong between rows of
earlier pages. A new request for the first page contains them all. (An event with ``ingested_at`` before the bound that
was stored after it may be on a page that has not been read yet; it is on no page twice.)

A cursor of another viewer or another filter, or one that was tampered with, is rejected.
"""

from dataclasses import dataclass
from typing import Any, Literal

from itsdangerous import BadData, URLSafeTimedSerializer

from auditstream_admin.auth.sessions import signer
from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.statements import Key, ShownOffset
from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.errors import FilterError

Direction = Literal["older", "newer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The position at which a page starts.

    Attributes:
        direction: Whether the page contains older or newer events than the key.
        key: The last event of the previous page, in that direction.
        span: Time range, fixed by the first page.
        bound: Latest ``ingested_at``, milliseconds since the epoch, fixed by the first page.
    """

    direction: Direction
    key: Key
    span: TimeSpan
    bound: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TailMark:
    """The position of a live tail: the last offset shown of each partition.

    ``not_before`` is the earliest ``ingested_at`` that later polls read, milliseconds since the epoch.
    """

    offsets: tuple[ShownOffset, ...]
    not_before: int


class Cursors:
    """Writes and reads cursors and tail marks."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def write(self, cursor: Cursor, viewer: Viewer, event_filter: EventFilter) -> str:
        """The cursor as a URL parameter."""
        key, span = cursor.key, cursor.span
        values = [cursor.direction, key.occurred_at, key.id, span.start, span.end, cursor.bound]
        return str(self._signer("cursor", viewer, event_filter).dumps(values))

    def read(self, text: str, viewer: Viewer, event_filter: EventFilter) -> Cursor:
        """Read a cursor.

        Raises:
            FilterError: The cursor was not written for this viewer and this filter.
        """
        direction, time, id, start, end, bound = self._values("cursor", text, viewer, event_filter)
        key, span = Key(occurred_at=time, id=id), TimeSpan(start=start, end=end)
        return Cursor(direction=direction, key=key, span=span, bound=bound)

    def write_mark(self, mark: TailMark, viewer: Viewer, event_filter: EventFilter) -> str:
        """The tail mark as a URL parameter."""
        return str(self._signer("tail", viewer, event_filter).dumps([mark.not_before, mark.offsets]))

    def read_mark(self, text: str, viewer: Viewer, event_filter: EventFilter) -> TailMark:
        """Read a tail mark.

        Raises:
            FilterError: The mark was not written for this viewer and this filter.
        """
        not_before, offsets = self._values("tail", text, viewer, event_filter)
        return TailMark(not_before=not_before, offsets=tuple(ShownOffset(*values) for values in offsets))

    def _values(self, kind: str, text: str, viewer: Viewer, event_filter: EventFilter) -> list[Any]:
        try:
            values: list[Any] = self._signer(kind, viewer, event_filter).loads(text)
        except BadData:
            raise FilterError(kind, "not valid for you and this filter: start at the first page") from None
        return values

    def _signer(self, kind: str, viewer: Viewer, event_filter: EventFilter) -> URLSafeTimedSerializer:
        """Viewer and filter are part of the signature, not of the text."""
        purpose = [kind, viewer.subject, viewer.role, *viewer.scopes, event_filter.with_(zone="UTC").query()]
        return signer(self._secret, "\0".join(purpose))
