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
from auditstream_export.query.statements import COUNTING, SETTINGS, ExportStatements, output_format
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
        books: The ledger up to the watermark.
        slices: The stretches of time that are read one after another.
        rows: How many events there are.
    """

    def __init__(
        self,
        client: Client,
        request: ExportRequest,
        *,
        database: str,
        shape: OutputFormat,
        watermark: Watermark | None = None,
        slices: Sequence[Slice] | None = None,
        slice_rows: int = ROWS,
    ) -> None:
        """Read the books and count the events; blocks until ClickHouse has done so.

        Args:
            client: Connection to ClickHouse; this snapshot's alone until `close`.
            request: Which events.
            database: Database of the audit tables.
            shape: What their bytes look like.
            watermark: Up to which offsets; None for the end of the books now.
            slices: Those of an earlier snapshot of the same request and watermark, which are not counted again.
            slice_rows: Events that ClickHouse is to sort at once, unless there are very many.

        Raises:
            ExportError: ClickHouse cannot be reached or refuses, or the books do not reach the watermark.
        """
        self._client = client
        self._ahead: dict[Slice, Prefetch[BaseHTTPResponse]] = {}
        self._parameters: dict[str, object] = {"database": database}
        self.books = read_ledger(self._query, watermark)
        self._statements = ExportStatements(filter=request.filter, watermark=self.books.watermark, shape=shape)
        self._parameters |= self._statements.parameters()
        self._shape = shape
        if slices is None:
            rows = self._query(self._statements.hours(), {"start": request.start, "end": request.end})
            hours = [(int(str(hour)), int(str(found))) for hour, found in rows]
            if shape.format == "parquet":
                slices = (Slice(start=request.start, end=request.end, rows=sum(found for _, found in hours)),)
            else:
                slices = tuple(cut(request.start, request.end, hours, rows=slice_rows))
        self.slices = tuple(slices)
        self.rows = sum(part.rows for part in self.slices)

    def records(self, part: Slice) -> Generator[Chunk]:
        """Yield the records of a slice, in chunks of about a megabyte. Not for parquet.

        Blocks on ClickHouse between chunks. When the iterator ends, everything has come and was counted.

        Raises:
            ExportSourceError: ClickHouse failed, or what came is not whole. The chunks so far are worthless.
        """
        records = Records(CSV if self._shape.format == "csv" else LINES)
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
        """Yield what ClickHouse answers for a slice, as it comes.

        Raises:
            ExportSourceError: ClickHouse failed. An answer that breaks off in the middle may merely end.
        """
        prefetch = self._ahead.pop(part, None) or self._ask(part)
        with failing_as(_failed):
            response = prefetch.answer()
            try:
                self._ask_ahead(part)
                while piece := response.read(_PIECE):
                    yield piece
            finally:
                # Not drained: an export that stops here must not wait for the rest.
                response.close()

    def close(self) -> None:
        """Let go of what was asked ahead."""
        for asked in self._ahead.values():
            asked.drop(BaseHTTPResponse.close)
        self._ahead.clear()

    def _ask_ahead(self, part: Slice) -> None:
        """Let ClickHouse sort the next slice while this one is read."""
        following = self.slices.index(part) + 1
        if following < len(self.slices):
            self._ahead[self.slices[following]] = self._ask(self.slices[following])

    def _ask(self, part: Slice) -> Prefetch[BaseHTTPResponse]:
        def ask() -> BaseHTTPResponse:
            return cast(
                "BaseHTTPResponse",
                self._client.raw_stream(
                    self._statements.rows(),
                    parameters=self._parameters | {"start": part.start, "end": part.end},
                    settings=SETTINGS,
                    fmt=output_format(self._shape),
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
    """What to say when a slice has not as many events as were counted."""
    return ExportSourceError(
        f"ClickHouse sent {came} of {part.rows} events between {format_timestamp(part.start)} and "
        f"{format_timestamp(part.end)}; nothing was exported, try again"
    )


def _failed(text: str) -> ExportSourceError:
    return ExportSourceError(f"ClickHouse failed: {text}; nothing was exported")
