"""Reads the events of the page: runs the statements and builds pages. Never writes."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.events.cursors import Cursor, Direction, TailMark
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.histogram import Histogram, bucket_width, fill_buckets, first_bucket
from auditstream_admin.events.statements import POLICY_SETTING, EventStatement, EventStatements, Key, ShownOffset
from auditstream_admin.events.stored_event import EventSummary, StoredEvent
from auditstream_admin.events.time_range import TimeSpan, Windows, doubling
from auditstream_schemas.errors import StoreUnavailableError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import NANOSECONDS
from auditstream_storage import Connection, checked_lines

COMPLETENESS_SECONDS = 15
"""How long the completeness is reused: the ledger has a line for every batch, and every page shows the completeness."""

_COMPLETENESS = EventStatement(
    sql="SELECT toUnixTimestamp64Milli(max(written_at)), count(), countIf(is_break) + countIf(is_misfit)"
    f" FROM ({checked_lines()})",
    parameters={},
)
_MILLISECOND = 1_000_000
_OVERLAP_MS = 10 * 60 * 1000
"""How far a sink's clock, or an unfinished batch, may be behind the newest event of the live tail: milliseconds."""
_TAIL_START_MS = 60 * 1000
_EXACT_ROWS = 500_000
"""Up to this number of rows, unmerged copies are counted once, which takes a tenth of a second."""
_QUICK_ROWS = 5_000_000
_AT_ONCE_ROWS = 60_000_000
"""Up to this number of rows are counted by one query; more rows in parts, newest first, until the time is up."""
_COUNTED_FIRST = 30 * 24 * 3600 * NANOSECONDS
_FIRST_ID = "00000000-0000-0000-0000-000000000000"
_LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a list.

    Attributes:
        lines: Its events, newest first; `StoredEvent`s if ``whole`` was given.
        older: Cursor of the next older page; None if there is none.
        newer: Cursor of the next newer page, within the bound of the sequence; None if there is none.
        searched_to: If the search stopped before its end: the time up to which it came. A cursor continues it.
    """

    lines: tuple[EventSummary, ...]
    older: Cursor | None
    newer: Cursor | None
    searched_to: int | None
    span: TimeSpan


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """The new events of a live tail.

    Attributes:
        lines: The events ingested since the mark, newest first by the time at which they occurred.
        mark: The mark for the next poll.
        is_cut: Whether more events have arrived; the next poll returns them.
    """

    lines: tuple[EventSummary, ...]
    mark: TailMark
    is_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """The end of the ledger, and whether the ledger balances. It is the same for all viewers.

    It tells nothing about the events of a scope. `auditstream verify` checks the rows, too.

    Attributes:
        until: Time of the latest line, milliseconds since the epoch; None if the ledger is empty.
        faults: Number of lines that do not add up, or do not follow the line before.
    """

    until: int | None
    faults: int

    @property
    def is_balanced(self) -> bool:
        """Whether every record up to the last line has one status in the ledger."""
        return self.until is not None and not self.faults


class EventStore:
    """Reads the event log for viewers. Safe to share between threads.

    Every method that reads blocks on ClickHouse, and raises `StoreUnavailableError` if ClickHouse is not available.
    """

    def __init__(
        self,
        settings: ClickHouseSettings,
        *,
        policy: bool = False,
        query_seconds: float = 30.0,
        patience: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Does not connect to ClickHouse yet.

        Args:
            settings: ClickHouse; the user should be read-only.
            policy: Send each viewer's scopes as a setting, for row policies in ClickHouse.
            query_seconds: A query that takes longer fails.
            patience: Seconds after which the search for a page stops; a cursor continues it.
            clock: Seconds that only grow.
        """
        self._database = settings.clickhouse_database
        self._connection = Connection(
            settings, lambda text: StoreUnavailableError(f"ClickHouse is not available: {text}")
        )
        self._policy = policy
        self._query_seconds = query_seconds
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._completeness: tuple[Completeness, float] | None = None

    def page(
        self,
        viewer: Viewer,
        event_filter: EventFilter,
        *,
        cursor: Cursor | None,
        size: int,
        now: int,
        whole: bool = False,
    ) -> Page:
        """A page of at most ``size`` events: at the cursor, or the newest page if the cursor is None.

        ``now`` is the time of the request, nanoseconds since the epoch. With ``whole``, all columns are read.
        """
        span = event_filter.time.span(now) if cursor is None else cursor.span
        bound = now // _MILLISECOND if cursor is None else cursor.bound
        after = None if cursor is None else cursor.key
        newest_first = cursor is None or cursor.direction == "older"
        keys, searched_to = self._keys(
            viewer, event_filter, span, bound=bound, limit=size + 1, after=after, newest_first=newest_first
        )
        more = len(keys) > size or searched_to is not None
        keys = keys[:size]
        last = keys[-1] if keys else None
        if searched_to is not None:
            # Just outside of the searched range, so that an event at its edge is neither left out nor shown twice.
            edge, edge_id = (searched_to, _FIRST_ID) if newest_first else (searched_to - 1, _LAST_ID)
            last = Key(occurred_at=edge, id=edge_id)

        def beside(direction: Direction, key: Key | None) -> Cursor | None:
            return None if key is None else Cursor(direction=direction, key=key, span=span, bound=bound)

        first = keys[0] if keys else after
        if newest_first:
            older = beside("older", last) if more else None
            newer = None if cursor is None else beside("newer", first)
        else:
            newer = beside("newer", last) if more else None
            older = beside("older", first)
        lines = self._lines(viewer, keys, whole=whole)
        return Page(lines=lines, older=older, newer=newer, searched_to=searched_to, span=span)

    def histogram(
        self, viewer: Viewer, event_filter: EventFilter, *, span: TimeSpan, quickly: bool = False
    ) -> Histogram | None:
        """The number of events of a range, over time; None if ``quickly`` and counting would delay a page."""
        statements = EventStatements(viewer)
        rows = sum(int(row[3]) for row in self._rows(statements.estimate(event_filter, span), viewer))
        if quickly and rows > _QUICK_ROWS:
            return None
        is_exact = rows <= _EXACT_ROWS
        width = bucket_width(span)
        origin = first_bucket(span, width, offset=_utc_offset(event_filter, span))
        counts: dict[int, tuple[int, int]] = {}
        counted_from: int | None = None
        deadline = self._clock() + self._patience
        parts = [span] if rows <= _AT_ONCE_ROWS else doubling(span, first=_COUNTED_FIRST)
        for part in parts:
            if self._clock() > deadline:
                counted_from = part.end
                break
            statement = statements.buckets(event_filter, part, origin=origin, width=width, exact=is_exact)
            for number, events, failed in self._rows(statement, viewer):
                earlier = counts.get(int(number), (0, 0))
                counts[int(number)] = (earlier[0] + int(events), earlier[1] + int(failed))
        buckets = fill_buckets(span, width, origin, counts)
        return Histogram(span=span, width=width, buckets=buckets, is_exact=is_exact, counted_from=counted_from)

    def events(self, viewer: Viewer, id: UUID) -> tuple[StoredEvent, ...]:
        """The event with this id that the viewer may see; two if two different events are stored under this id."""
        return tuple(StoredEvent.of(row) for row in self._rows(EventStatements(viewer).event(str(id)), viewer))

    def arrivals(
        self, viewer: Viewer, event_filter: EventFilter, *, mark: TailMark | None, now: int, size: int = 200
    ) -> Arrivals:
        """The events ingested since a mark; without a mark, in the last minute.

        Each event is returned once, by its Kafka coordinates, even if clocks differ: the events of a partition are
        stored in the order of their offsets.
        """
        now_ms = now // _MILLISECOND
        since = mark or TailMark(offsets=(), not_before=now_ms - _TAIL_START_MS)
        statement = EventStatements(viewer).arrived(
            event_filter, since.offsets, not_before=since.not_before, limit=size + 1
        )
        rows = self._rows(statement, viewer)
        is_cut = len(rows) > size
        rows = rows[:size]
        offsets = {(topic_id, partition): offset for topic_id, partition, offset in since.offsets}
        for topic_id, partition, offset, *_ in rows:
            offsets[topic_id, partition] = max(offset, offsets.get((topic_id, partition), -1))
        not_before = since.not_before if is_cut else max(since.not_before, now_ms - _OVERLAP_MS)
        shown_offsets = tuple(ShownOffset(*partition, offset) for partition, offset in sorted(offsets.items()))
        return Arrivals(
            lines=self._lines(viewer, _unique_keys([row[3:] for row in rows]), whole=False),
            mark=TailMark(offsets=shown_offsets, not_before=not_before),
            is_cut=is_cut,
        )

    def actions(self, viewer: Viewer, span: TimeSpan) -> list[tuple[str, int]]:
        """The actions of a time range, and the number of events of each."""
        rows = self._rows(EventStatements(viewer).actions(span), viewer)
        return [(str(name), int(count)) for name, count in rows]

    def completeness(self) -> Completeness:
        """The completeness, at most `COMPLETENESS_SECONDS` old."""
        with self._lock:
            if self._completeness is None or self._clock() >= self._completeness[1]:
                until, lines, faults = self._rows(_COMPLETENESS)[0]
                completeness = Completeness(until=int(until) if lines else None, faults=int(faults))
                self._completeness = completeness, self._clock() + COMPLETENESS_SECONDS
            return self._completeness[0]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _keys(
        self,
        viewer: Viewer,
        event_filter: EventFilter,
        span: TimeSpan,
        *,
        bound: int,
        limit: int,
        after: Key | None,
        newest_first: bool,
    ) -> tuple[list[Key], int | None]:
        """Up to ``limit`` keys; if the search stopped before its end, also the time up to which it came."""
        deadline = self._clock() + self._patience
        if after is not None and newest_first:
            span = TimeSpan(start=span.start, end=min(span.end, after.occurred_at + 1))
        elif after is not None:
            span = TimeSpan(start=max(span.start, after.occurred_at), end=span.end)
        keys: dict[Key, None] = {}
        windows = Windows(span, newest_first=newest_first)
        for window in windows:
            while True:
                statement = EventStatements(viewer).keys(
                    event_filter, window, bound=bound, limit=limit, after=after, newest_first=newest_first
                )
                rows = self._rows(statement, viewer)
                keys.update(dict.fromkeys(_unique_keys(rows)))
                if len(keys) >= limit or len(rows) < limit:
                    break
                # Some rows are unmerged copies: continue after them.
                after = list(keys)[-1]
            if len(keys) >= limit or windows.is_done:
                break
            if self._clock() > deadline:
                return list(keys), window.start if newest_first else window.end
            windows.widen(results=len(keys), missing=limit - len(keys))
        return list(keys)[:limit], None

    def _lines(self, viewer: Viewer, keys: Sequence[Key], *, whole: bool) -> tuple[EventSummary, ...]:
        if not keys:
            return ()
        rows = self._rows(EventStatements(viewer).rows(keys, whole=whole), viewer)
        lines = (StoredEvent.of(row) if whole else EventSummary.of(row) for row in rows)
        read = set(keys)
        return tuple(line for line in lines if line.key in read)

    def _rows(self, statement: EventStatement, viewer: Viewer | None = None) -> Sequence[Sequence[Any]]:
        """The rows of a statement; ``viewer`` is None if it reads no events."""
        settings: dict[str, Any] = {"max_execution_time": self._query_seconds}
        if self._policy and viewer is not None:
            settings[POLICY_SETTING] = policy_value(viewer)
        parameters = {"database": self._database, **statement.parameters}
        with self._connection.client() as client:
            rows: Sequence[Sequence[Any]] = client.query(statement.sql, parameters, settings).result_rows
        return rows


def policy_value(viewer: Viewer) -> str:
    """The value that row policies read: the scopes' ids in hexadecimal, separated by commas, or an asterisk for all.

    Hexadecimal needs no escapes. The value is quoted, which ClickHouse requires for a custom setting; the policy
    removes the quotes if they have become part of the value.
    """
    return "'*'" if viewer.sees_all else "'" + ",".join(scope.encode().hex().upper() for scope in viewer.scopes) + "'"


def _unique_keys(rows: Sequence[Sequence[Any]]) -> list[Key]:
    """The keys in rows of time, id and scope; unmerged copies have the same key."""
    return list(dict.fromkeys(Key(occurred_at=int(row[0]), id=str(row[1]), scope=str(row[2])) for row in rows))


def _utc_offset(event_filter: EventFilter, span: TimeSpan) -> int:
    """Offset from UTC of the zone in which times are shown, in nanoseconds, at the end of a range."""
    moment = datetime.fromtimestamp(min(span.end // NANOSECONDS, 4_102_444_800), UTC)
    shift = moment.astimezone(event_filter.display_zone).utcoffset()
    return 0 if shift is None else int(shift.total_seconds()) * NANOSECONDS
