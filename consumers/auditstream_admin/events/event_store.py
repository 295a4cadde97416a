"""Reads the events of the page: runs the statements and builds pages. Never writes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.events.completeness import SQL, CachedCompleteness, Completeness
from auditstream_admin.events.cursors import Cursor, TailMark
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.histogram import Histogram, bucket_width, fill_buckets, first_bucket
from auditstream_admin.events.statements import POLICY_SETTING, EventStatement, EventStatements, Key, Offsets
from auditstream_admin.events.stored_event import EventSummary, StoredEvent
from auditstream_admin.events.time_range import TimeSpan
from auditstream_admin.events.windows import Windows, doubling
from auditstream_schemas.errors import StoreUnavailableError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import NANOSECONDS
from auditstream_storage import Connection

_MILLISECOND = 1_000_000
_OVERLAP_MS = 10 * 60 * 1000
"""How far a sink's clock, or an unfinished batch, may be behind the newest event of the live tail: milliseconds."""
_TAIL_START_MS = 60 * 1000
_EXACT_ROWS = 500_000
"""Up to this number of rows, unmerged copies are counted once, which takes a tenth of a second."""
_QUICK_ROWS = 5_000_000
_AT_ONCE_ROWS = 60_000_000
"""Up to this number of rows are counted by one query; more in parts, newest first, until patience ends."""
_COUNTED_FIRST = 30 * 24 * 3600 * NANOSECONDS
_FIRST_ID = "00000000-0000-0000-0000-000000000000"
_LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a list.

    Attributes:
        lines: Its events, newest first; with all columns if ``whole`` was given.
        older: Cursor of the next older page; None if there is none.
        newer: Cursor of the next newer page, within the bound of the sequence; None if there is none.
        searched_to: The time up to which the search came, if it ran out of patience; ``older`` or ``newer`` goes on.
        span: The range of time of the sequence.
        bound: Latest ``ingested_at`` of the sequence, milliseconds since the epoch.
    """

    lines: tuple[EventSummary, ...]
    older: Cursor | None
    newer: Cursor | None
    searched_to: int | None
    span: TimeSpan
    bound: int


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


class EventStore:
    """Reads the event log for viewers. Safe to share between threads."""

    def __init__(
        self, settings: ClickHouseSettings, *, policy: bool = False, query_seconds: float = 30.0, patience: float = 2.0
    ) -> None:
        """Query nothing yet; ClickHouse may be away.

        Args:
            settings: ClickHouse; the user should be read-only.
            policy: Send each viewer's scopes as a setting, for row policies in ClickHouse.
            query_seconds: A query that takes longer fails.
            patience: Seconds after which the search for a page stops; a cursor goes on with it.
        """
        self._database = settings.clickhouse_database
        self._connection = Connection(
            settings, lambda text: StoreUnavailableError(f"ClickHouse cannot be asked: {text}")
        )
        self._policy = policy
        self._query_seconds = query_seconds
        self._patience = patience
        self._completeness = CachedCompleteness(self._read_completeness, time.monotonic)

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
        """A page of events.

        Args:
            viewer: The viewer.
            event_filter: The filter.
            cursor: Position of the page; None for the newest page.
            size: Number of events of a page.
            now: Time of the request, nanoseconds since the epoch.
            whole: Read all columns of each event.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
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
            last = (
                Key(occurred_at=searched_to, id=_FIRST_ID)
                if newest_first
                else Key(occurred_at=searched_to - 1, id=_LAST_ID)
            )
        lines = self._lines(viewer, keys, whole=whole)

        def beside(direction: Any, key: Key | None) -> Cursor | None:
            return None if key is None else Cursor(direction=direction, key=key, span=span, bound=bound)

        first = keys[0] if keys else after
        if newest_first:
            older = beside("older", last) if more else None
            newer = None if cursor is None else beside("newer", first)
        else:
            newer = beside("newer", last) if more else None
            older = beside("older", first)
        return Page(lines=lines, older=older, newer=newer, searched_to=searched_to, span=span, bound=bound)

    def histogram(
        self, viewer: Viewer, event_filter: EventFilter, *, span: TimeSpan, quickly: bool = False
    ) -> Histogram | None:
        """The number of events of the range, over time.

        Args:
            viewer: The viewer.
            event_filter: The filter.
            span: The range of time.
            quickly: Return None if counting would delay a page.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        statements = self._statements(viewer)
        rows = sum(int(row[3]) for row in self._ask(viewer, statements.estimate(event_filter, span)))
        if quickly and rows > _QUICK_ROWS:
            return None
        is_exact = rows <= _EXACT_ROWS
        width = bucket_width(span)
        origin = first_bucket(span, width, offset=_utc_offset(event_filter, span))
        counts: dict[int, tuple[int, int]] = {}
        counted_from: int | None = None
        until = time.monotonic() + self._patience
        parts = [span] if rows <= _AT_ONCE_ROWS else doubling(span, first=_COUNTED_FIRST)
        for part in parts:
            if time.monotonic() > until:
                counted_from = part.end
                break
            statement = statements.buckets(event_filter, part, origin=origin, width=width, exact=is_exact)
            for number, events, failed in self._ask(viewer, statement):
                before = counts.get(int(number), (0, 0))
                counts[int(number)] = (before[0] + int(events), before[1] + int(failed))
        return Histogram(
            span=span,
            width=width,
            buckets=fill_buckets(span, width, origin, counts),
            is_exact=is_exact,
            counted_from=counted_from,
        )

    def events(self, viewer: Viewer, id: UUID) -> tuple[StoredEvent, ...]:
        """The event with this id that the viewer may see; two if two different events are stored under this id.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        return tuple(StoredEvent.of(row) for row in self._ask(viewer, self._statements(viewer).event(str(id))))

    def arrivals(
        self, viewer: Viewer, event_filter: EventFilter, *, mark: TailMark | None, now: int, size: int = 200
    ) -> Arrivals:
        """The events ingested since a mark; without a mark, in the last minute.

        Each event is returned once, by its Kafka coordinates, whatever the clocks are: the events of a partition are
        stored in the order of their offsets.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        now_ms = now // _MILLISECOND
        since = mark or TailMark(offsets=(), not_before=now_ms - _TAIL_START_MS)
        rows = self._ask(
            viewer,
            self._statements(viewer).arrived(event_filter, since.offsets, not_before=since.not_before, limit=size + 1),
        )
        is_cut = len(rows) > size
        rows = rows[:size]
        seen = {(one.topic_id, one.partition): one.offset for one in since.offsets}
        for topic_id, partition, offset, *_ in rows:
            seen[topic_id, partition] = max(offset, seen.get((topic_id, partition), -1))
        keys = self._as_keys([row[3:] for row in rows])
        offsets = tuple(
            Offsets(topic_id=topic_id, partition=partition, offset=offset)
            for (topic_id, partition), offset in sorted(seen.items())
        )
        not_before = since.not_before if is_cut else max(since.not_before, now_ms - _OVERLAP_MS)
        return Arrivals(
            lines=self._lines(viewer, keys, whole=False),
            mark=TailMark(offsets=offsets, not_before=not_before),
            is_cut=is_cut,
        )

    def actions(self, viewer: Viewer, span: TimeSpan) -> list[tuple[str, int]]:
        """The actions of a range of time, and the number of events of each.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        return [(str(name), int(count)) for name, count in self._ask(viewer, self._statements(viewer).actions(span))]

    def completeness(self) -> Completeness:
        """The end of the ledger, at most some seconds ago; the same for all viewers.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        return self._completeness.get()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _read_completeness(self) -> Completeness:
        settings = {"max_execution_time": self._query_seconds}
        with self._connection.client() as client:
            rows = client.query(SQL, parameters={"database": self._database}, settings=settings).result_rows
        until, lines, breaks, misfits = rows[0]
        return Completeness(until=int(until) if lines else None, faults=int(breaks) + int(misfits))

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
        """Up to ``limit`` keys, and the time up to which the search came, if it ran out of patience."""
        statements = self._statements(viewer)
        until = time.monotonic() + self._patience
        left = span
        if after is not None:
            end = min(span.end, after.occurred_at + 1) if newest_first else span.end
            start = span.start if newest_first else max(span.start, after.occurred_at)
            left = TimeSpan(start=start, end=end)
        keys: dict[Key, None] = {}
        windows = Windows(left, newest_first=newest_first)
        for window in windows:
            while True:
                statement = statements.keys(
                    event_filter, window, bound=bound, limit=limit, after=after, newest_first=newest_first
                )
                rows = self._ask(viewer, statement)
                keys.update(dict.fromkeys(self._as_keys(rows)))
                if len(keys) >= limit or len(rows) < limit:
                    break
                # Some rows are unmerged copies: go on after them.
                after = list(keys)[-1]
            if len(keys) >= limit or windows.is_done:
                break
            if time.monotonic() > until:
                return list(keys), window.start if newest_first else window.end
            windows.widen(found=len(keys), missing=limit - len(keys))
        return list(keys)[:limit], None

    def _lines(self, viewer: Viewer, keys: Sequence[Key], *, whole: bool) -> tuple[EventSummary, ...]:
        if not keys:
            return ()
        rows = self._ask(viewer, self._statements(viewer).rows(keys, whole=whole))
        times_and_ids = {(key.occurred_at, key.id) for key in keys}
        lines = (StoredEvent.of(row) if whole else EventSummary.of(row) for row in rows)
        return tuple(line for line in lines if (line.key.occurred_at, line.key.id) in times_and_ids)

    def _statements(self, viewer: Viewer) -> EventStatements:
        return EventStatements(viewer, database=self._database)

    @staticmethod
    def _as_keys(rows: Sequence[Sequence[Any]]) -> list[Key]:
        return list(dict.fromkeys(Key(occurred_at=int(row[0]), id=str(row[1]), scope=str(row[2])) for row in rows))

    def _ask(self, viewer: Viewer, statement: EventStatement) -> Sequence[Sequence[Any]]:
        settings = {**statement.settings, "max_execution_time": self._query_seconds}
        if self._policy:
            settings[POLICY_SETTING] = policy_value(viewer)
        with self._connection.client() as client:
            answer = client.query(statement.sql, parameters=dict(statement.parameters), settings=settings)
        rows: Sequence[Sequence[Any]] = answer.result_rows
        return rows


def policy_value(viewer: Viewer) -> str:
    """The value that row policies read: the scopes' ids in hexadecimal, separated by commas, or an asterisk for all.

    Hexadecimal needs no escapes. The value is quoted, which ClickHouse requires for a custom setting; the policy
    removes the quotes if they have become part of the value.
    """
    return "'*'" if viewer.sees_all else "'" + ",".join(scope.encode().hex().upper() for scope in viewer.scopes) + "'"


def _utc_offset(event_filter: EventFilter, span: TimeSpan) -> int:
    """Offset from UTC of the zone in which times are shown, in nanoseconds, at the end of a range."""
    moment = datetime.fromtimestamp(min(span.end // NANOSECONDS, 4_102_444_800), UTC)
    shift = moment.astimezone(event_filter.display_zone).utcoffset()
    return 0 if shift is None else int(shift.total_seconds()) * NANOSECONDS
