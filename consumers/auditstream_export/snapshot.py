"""The events of a request as CSV: fixed at one moment, streamed, each exactly once.

One query counts the events per hour and notes their latest ``ingested_at``. That is the snapshot: what is
visible then is exported; what is ingested later is not. Then each slice of time is one query.

An insert under way at that moment may hold rows with an ``ingested_at`` before the latest. They are in the
slices that are read after it and not in those before, so a slice is whole if it has as many records as
counted at the start, or as counted again after it was read.
"""

from collections.abc import Generator, Mapping
from typing import cast

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from auditstream_export import statements
from auditstream_export.records import RecordCounter
from auditstream_export.request import ExportRequest
from auditstream_export.slices import ROWS, Slice, cut
from auditstream_schemas.errors import ExportError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import format_timestamp

_PIECE = 1024 * 1024
_FAILURES = (ClickHouseError, HTTPError, OSError)


def connect(settings: ClickHouseSettings) -> Client:
    """Connect to ClickHouse; blocks until it answers.

    Raises:
        ExportError: It does not.
    """
    try:
        return clickhouse_connect.get_client(
            dsn=settings.clickhouse_url,
            username=settings.clickhouse_user,
            password=str(settings.clickhouse_password),
            autogenerate_session_id=False,
        )
    except _FAILURES as error:
        raise ExportError(
            f"no ClickHouse at AUDITSTREAM_CLICKHOUSE_URL for user {settings.clickhouse_user}: "
            f"{_first_line(error)[:200]}; nothing was exported"
        ) from error


class Snapshot:
    """The events that match a request now, whatever is ingested later.

    Attributes:
        rows: How many there are.
        ingested_up_to: Latest ``ingested_at`` among them, milliseconds since the epoch; None if there are none.
    """

    def __init__(self, client: Client, request: ExportRequest, *, database: str, slice_rows: int = ROWS) -> None:
        """Count the events; blocks until ClickHouse has done so.

        Args:
            client: Connection to ClickHouse; this snapshot's alone until `pieces` is exhausted.
            request: Which events.
            database: Database of the audit tables.
            slice_rows: Events that ClickHouse is to sort at once, unless there are very many.

        Raises:
            ExportError: ClickHouse cannot be reached or refuses.
        """
        self._client = client
        self._filter = request.filter
        self._parameters = {"database": database, **request.filter.where()[1]}
        hours = self._query(statements.hours(self._filter), start=request.start, end=request.end)
        held = [(hour, found) for hour, found, _ in hours]
        self._slices = tuple(cut(request.start, request.end, held, rows=slice_rows))
        self.rows = sum(found for _, found, _ in hours)
        self.ingested_up_to = max((last for _, _, last in hours), default=None)

    def pieces(self) -> Generator[tuple[bytes, int]]:
        """Yield the CSV, header first, in pieces of any length; with each the records that it begins.

        Blocks on ClickHouse between pieces. When the iterator ends, everything has come and was counted.

        Raises:
            ExportError: ClickHouse failed, or what came is not whole. The pieces so far are worthless.
        """
        yield statements.HEADER, 0
        for part in self._slices:
            yield from self._slice(part)

    def _slice(self, part: Slice) -> Generator[tuple[bytes, int]]:
        parameters = {"start": part.start, "end": part.end, "ingested_up_to": self.ingested_up_to}
        counter = RecordCounter()
        try:
            response = cast(
                "BaseHTTPResponse",
                self._client.raw_stream(
                    statements.rows(self._filter),
                    parameters=self._parameters | parameters,
                    settings=statements.SETTINGS,
                    fmt="CSV",
                    use_database=False,
                ),
            )
            try:
                while piece := response.read(_PIECE):
                    before = counter.records
                    counter.feed(piece)
                    yield piece, counter.records - before
            finally:
                # Not drained: an export that stops here must not wait for the rest.
                response.close()
        except _FAILURES as error:
            raise _failed(error) from error
        if not counter.whole:
            found = counter.error or "it ended inside a record"
            raise ExportError(f"ClickHouse's answer broke off: {found}; nothing was exported, try again")
        if counter.records != part.rows:
            counted = self._query(statements.count(self._filter), **parameters)[0][0]
            if counter.records != counted:
                raise ExportError(
                    f"ClickHouse sent {counter.records} of {counted} events between "
                    f"{format_timestamp(part.start)} and {format_timestamp(part.end)} ({part.rows} when the "
                    "export began); nothing was exported, try again"
                )

    def _query(self, sql: str, **parameters: object) -> list[tuple[int, ...]]:
        try:
            answer = self._client.query(sql, parameters=self._parameters | parameters, settings=dict(_COUNTING))
        except _FAILURES as error:
            raise _failed(error) from error
        return [tuple(map(int, row)) for row in answer.result_rows]


_COUNTING: Mapping[str, object] = {
    name: value for name, value in statements.SETTINGS.items() if "csv" not in name and "json" not in name
}


def _failed(error: Exception) -> ExportError:
    return ExportError(f"ClickHouse failed: {_first_line(error)[:500]}; nothing was exported")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
