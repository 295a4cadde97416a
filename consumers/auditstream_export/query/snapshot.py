"""The events of a request up to a watermark, streamed as the bytes of a format, each event exactly once.

One query reads the ledger, whose end is the watermark unless one is given. One query counts the events per hour. Then
each slice of time is one query, which must return as many events as were counted; the next query starts while one
answer is read. Visible events beyond the watermark are neither counted nor returned.
"""

from collections.abc import Generator, Sequence
from typing import cast

from clickhouse_connect.driver.client import Client
from urllib3.response import BaseHTTPResponse

from auditstream_export.formats.output_format import OutputFormat
from auditstream_export.formats.records import CSV, LINES, Chunk, Records
from auditstream_export.prefetch import Prefetch
from auditstream_export.query.ledger_extract import read_ledger
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.slices import ROWS, Slice, cut
from auditstream_export.query.statements import COUNTING, SETTINGS, ExportStatements, clickhouse_format
from auditstream_export.query.watermark import Watermark
from auditstream_schemas.errors import ExportError, ExportSourceError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import format_timestamp
from auditstream_storage import connect as connect_to_clickhouse
from auditstream_storage import failing_as

_PIECE = 1024 * 1024


def connect(settings: ClickHouseSettings) -> Client:
    """Connect to ClickHouse; blocks until it answers.

    Raises:
        ExportSourceError: ClickHouse does not answer, or refuses the user.
        SettingsError: A setting is malformed.
    """
    where = f"no ClickHouse at AUDITSTREAM_CLICKHOUSE_URL for user {settings.clickhouse_user}"
    with failing_as(lambda text: ExportSourceError(f"{where}: {text}; nothing was exported")):
        return connect_to_clickhouse(settings)


class Snapshot:
    """The events that match a request up to a watermark, whatever arrives later.

    Attributes:
        ledger: The ledger up to the watermark.
        slices: The ranges of time that are read one after another.
        rows: Number of events.
    """

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

        Args:
            client: Connection to ClickHouse; this snapshot's alone until `close`.
            request: Range and filter of the events.
            database: Database of the audit tables.
            output_format: The format of the bytes.
            watermark: The last offsets whose events belong; None for the end of the ledger now.
            slices: The slices of an earlier snapshot of the same request and watermark; None to count the events.
            slice_rows: Number of events that ClickHouse sorts at once, more if there are very many.

        Raises:
            ExportError: ClickHouse cannot be reached or refuses, or the ledger ends before the watermark.
        """
        self._client = client
        self._prefetched: dict[Slice, Prefetch[BaseHTTPResponse]] = {}
        self._parameters: dict[str, object] = {"database": database}
        self.ledger = read_ledger(self._query, watermark)
        self._statements = ExportStatements(
            filter=request.filter, watermark=self.ledger.watermark, output_format=output_format
        )
        self._parameters |= self._statements.parameters()
        self._output_format = output_format
        if slices is None:
            rows = self._query(self._statements.hours(), {"start": request.start, "end": request.end})
            hours = [(int(str(hour)), int(str(events))) for hour, events in rows]
            if output_format.format == "parquet":
                slices = (Slice(start=request.start, end=request.end, rows=sum(events for _, events in hours)),)
            else:
                slices = tuple(cut(request.start, request.end, hours, rows=slice_rows))
        self.slices = tuple(slices)
        self.rows = sum(part.rows for part in self.slices)

    def records(self, part: Slice) -> Generator[Chunk]:
        """Yield the records of a slice, in chunks of about a megabyte. Not for parquet.

        Blocks on ClickHouse between chunks. When the iterator ends, all events were received and counted.

        Raises:
            ExportSourceError: ClickHouse failed, or its answer is incomplete. The chunks so far must be dropped.
        """
        records = Records(CSV if self._output_format.format == "csv" else LINES)
        came = 0
        for piece in self.pieces(part):
            chunk = records.feed(piece)
            came += len(chunk.starts)
            if chunk.data:
                yield chunk
        try:
            last = records.end()
        except ExportError as error:
            raise ExportSourceError(
                f"ClickHouse's answer broke off: {error}; nothing was exported, try again"
            ) from error
        came += len(last.starts)
        if came != part.rows:
            raise wrong_count(part, came)
        yield last

    def pieces(self, part: Slice) -> Generator[bytes]:
        """Yield ClickHouse's answer for a slice, piece by piece.

        Raises:
            ExportSourceError: ClickHouse failed. An answer that breaks off may also just end: compare the count.
        """
        prefetch = self._prefetched.pop(part, None) or self._ask(part)
        with failing_as(_failed):
            response = prefetch.answer()
            try:
                self._prefetch_next(part)
                while piece := response.read(_PIECE):
                    yield piece
            finally:
                # Not drained: an export that stops here must not wait for the rest.
                response.close()

    def close(self) -> None:
        """Drop the prefetched answers."""
        for prefetch in self._prefetched.values():
            prefetch.drop(BaseHTTPResponse.close)
        self._prefetched.clear()

    def _prefetch_next(self, part: Slice) -> None:
        """Start the query of the next slice while this one is read."""
        following = self.slices.index(part) + 1
        if following < len(self.slices):
            self._prefetched[self.slices[following]] = self._ask(self.slices[following])

    def _ask(self, part: Slice) -> Prefetch[BaseHTTPResponse]:
        def ask() -> BaseHTTPResponse:
            return cast(
                "BaseHTTPResponse",
                self._client.raw_stream(
                    self._statements.rows(),
                    parameters=self._parameters | {"start": part.start, "end": part.end},
                    settings=SETTINGS,
                    fmt=clickhouse_format(self._output_format),
                    use_database=False,
                ),
            )

        return Prefetch(ask)

    def _query(self, sql: str, parameters: dict[str, object]) -> Sequence[Sequence[object]]:
        with failing_as(_failed):
            return self._client.query(
                sql, parameters=self._parameters | parameters, settings=dict(COUNTING)
            ).result_rows


def wrong_count(part: Slice, came: int) -> ExportSourceError:
    """The error for a slice whose number of events is not the counted one."""
    return ExportSourceError(
        f"ClickHouse sent {came} of {part.rows} events between {format_timestamp(part.start)} and "
        f"{format_timestamp(part.end)}; nothing was exported, try again"
    )


def _failed(text: str) -> ExportSourceError:
    return ExportSourceError(f"ClickHouse failed: {text}; nothing was exported")
