"""The events of a request up to a watermark, streamed as the bytes of a format, each event exactly once.

One query reads the ledger, whose end is the watermark unless one is given. One query counts the events per hour. Then
each slice of time is one query, which must return as many events as were counted. The next query starts while one
answer is read. Visible events beyond the watermark are neither counted nor returned.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

from clickhouse_connect.driver.client import Client
from urllib3.response import BaseHTTPResponse

from auditstream_export.formats.output_format import OutputFormat
from auditstream_export.formats.records import CSV, LINES, Chunk, Records
from auditstream_export.query.ledger_extract import read_ledger
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.statements import COUNTING, SETTINGS, ExportStatements
from auditstream_export.query.watermark import Watermark
from auditstream_schemas.background import in_background
from auditstream_schemas.errors import ExportError, ExportSourceError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import format_timestamp
from auditstream_storage import connect as connect_to_clickhouse
from auditstream_storage import failing_as

ROWS = 500_000
"""Events per slice; ClickHouse sorts them in memory within a second."""
MAX_SLICES = 50
"""Approximate limit. Each slice reads every granule that its time touches, and with many scopes that is most of the
month. So huge exports get larger slices, which ClickHouse sorts on disk."""
_PIECE_BYTES = 1024 * 1024
_CLICKHOUSE_FORMATS = {"csv": "CSV", "ndjson": "TSVRaw", "parquet": "Parquet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A half-open range of time (nanoseconds since the epoch) with so few events that ClickHouse can sort them."""

    start: int
    end: int
    rows: int


def connect(settings: ClickHouseSettings) -> Client:
    """Connect to ClickHouse; blocks until it answers. Raises ExportSourceError if it does not, or refuses the user."""
    where = f"no ClickHouse at AUDITSTREAM_CLICKHOUSE_URL for user {settings.clickhouse_user}"
    with failing_as(lambda text: ExportSourceError(f"{where}: {text}; nothing was exported")):
        return connect_to_clickhouse(settings)


class Snapshot:
    """The events that match a request up to a watermark: ``rows`` events in ``slices``, and the ledger up to there."""

    def __init__(
        self,
        client: Client,
        request: ExportRequest,
        *,
        database: str,
        output_format: OutputFormat,
        watermark: Watermark | None = None,
        slices: Sequence[Slice] | None = None,
        slice_rows: int = ROWS,
    ) -> None:
        """Read the ledger and count the events; blocks on ClickHouse.

        Nothing else may use ``client`` until `close`. Without ``watermark``, events up to the end of the ledger are
        included. ``slices`` of an earlier snapshot of the same request and watermark make the counting unnecessary.

        Raises:
            ExportError: ClickHouse failed, or the ledger ends before the watermark.
        """
        self._client = client
        self._prefetched: dict[Slice, Future[BaseHTTPResponse]] = {}
        self._parameters: dict[str, object] = {"database": database}
        self.ledger = read_ledger(self._query, watermark)
        watermark = self.ledger.watermark
        self._statements = ExportStatements(filter=request.filter, watermark=watermark, output_format=output_format)
        self._parameters |= self._statements.parameters()
        self._output_format = output_format
        if slices is None:
            hours = self._query(self._statements.hours(), {"start": request.start, "end": request.end})
            if output_format.format == "parquet":
                slices = [Slice(start=request.start, end=request.end, rows=sum(events for _, events in hours))]
            else:
                slices = list(cut(request.start, request.end, hours, rows=slice_rows))
        self.slices = tuple(slices)
        self.rows = sum(part.rows for part in self.slices)

    def records(self, part: Slice) -> Generator[Chunk]:
        """Yield the records of a slice, in chunks of about a megabyte. Not for parquet. Blocks between chunks.

        Raises:
            ExportSourceError: ClickHouse failed, or its answer is incomplete. Discard the chunks of this slice.
        """
        records = Records(CSV if self._output_format.format == "csv" else LINES)
        rows = 0
        for piece in self.pieces(part):
            chunk = records.feed(piece)
            rows += len(chunk.starts)
            if chunk.data:
                yield chunk
        try:
            last = records.end()
        except ExportError as error:
            raise ExportSourceError(
                f"ClickHouse's answer broke off: {error}; nothing was exported, try again"
            ) from error
        rows += len(last.starts)
        if rows != part.rows:
            raise wrong_count(part, rows)
        yield last

    def pieces(self, part: Slice) -> Generator[bytes]:
        """Yield ClickHouse's answer for a slice, piece by piece. Raises ExportSourceError.

        An answer may break off without an error, so the caller must compare the number of rows.
        """
        answer = self._prefetched.pop(part, None) or self._ask(part)
        with failing_as(_failed):
            response = answer.result()
            try:
                following = self.slices.index(part) + 1
                if following < len(self.slices):
                    self._prefetched[self.slices[following]] = self._ask(self.slices[following])
                while piece := response.read(_PIECE_BYTES):
                    yield piece
            finally:
                # Without reading the rest: an interrupted export must end at once.
                response.close()

    def close(self) -> None:
        """Discard the prefetched answer: it is closed as soon as it arrives."""
        for answer in self._prefetched.values():
            answer.add_done_callback(_close_response)
        self._prefetched.clear()

    def _ask(self, part: Slice) -> "Future[BaseHTTPResponse]":
        """Start the query of a slice in a thread, so that signals still interrupt the wait for its answer."""

        def ask() -> BaseHTTPResponse:
            response = self._client.raw_stream(
                self._statements.rows(),
                parameters=self._parameters | {"start": part.start, "end": part.end},
                settings=SETTINGS,
                fmt=_CLICKHOUSE_FORMATS[self._output_format.format],
                use_database=False,
            )
            return cast("BaseHTTPResponse", response)

        return in_background(ask, "export-prefetch")

    def _query(self, sql: str, parameters: dict[str, object]) -> Sequence[Sequence[Any]]:
        values = self._parameters | parameters
        with failing_as(_failed):
            rows: Sequence[Sequence[Any]] = self._client.query(sql, parameters=values, settings=COUNTING).result_rows
        return rows


def cut(start: int, end: int, hours: Sequence[Sequence[int]], *, rows: int = ROWS) -> Iterator[Slice]:
    """Cut a range at full hours into slices without gaps. An hour is never divided.

    ``hours`` has first nanosecond and number of events of each hour with events, in order. A slice has up to ``rows``
    events, or more if there would be too many slices.
    """
    rows = max(rows, sum(count for _, count in hours) // MAX_SLICES)
    slice_rows = 0
    for hour, count in hours:
        if slice_rows and slice_rows + count > rows:
            yield Slice(start=start, end=hour, rows=slice_rows)
            start, slice_rows = hour, 0
        slice_rows += count
    if slice_rows:
        yield Slice(start=start, end=end, rows=slice_rows)


def _close_response(answer: "Future[BaseHTTPResponse]") -> None:
    if answer.exception() is None:
        answer.result().close()


def wrong_count(part: Slice, rows: int) -> ExportSourceError:
    """The error for a slice that came with a number of events other than the counted one."""
    return ExportSourceError(
        f"ClickHouse sent {rows} of {part.rows} events between {format_timestamp(part.start)} and "
        f"{format_timestamp(part.end)}; nothing was exported, try again"
    )


def _failed(text: str) -> ExportSourceError:
    return ExportSourceError(f"ClickHouse failed: {text}; nothing was exported")
