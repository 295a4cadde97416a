"""ClickHouse's HTTP protocol as an ASGI application over the engine."""

import asyncio
import io
import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect

from auditstream_local.clickhouse_body import Spool
from auditstream_local.clickhouse_engine import Engine, Outcome, Query, Ticket
from auditstream_local.clickhouse_errors import SYNTAX_ERROR, ClickHouseError, exception_block
from auditstream_local.clickhouse_reception import Prefetch, Receive, Reception
from auditstream_local.clickhouse_request import check_origin, check_password
from auditstream_local.clickhouse_response import CHUNK, Encoder, ResultPipe, choose_encoder, summary
from auditstream_local.clickhouse_statement import InsertHead, Statement, read_statement

QUERIES_AT_ONCE = 100
_LOG = logging.getLogger("auditstream.clickhouse")
_CANCEL_AGAIN_S = 0.05
_WAIT_IN_MEMORY = 8 * CHUNK
_TEXT = "text/plain; charset=UTF-8"
_WELL = frozenset({"/ping", "/replicas_status"})
_NAME = re.compile(r"\w+")

Send = Callable[[Any], Awaitable[None]]


class Front:
    """The ASGI application."""

    def __init__(self, engine: Engine, spool: Spool, password: str | None = None) -> None:
        """Serve an engine.

        Args:
            engine: Where queries run.
            spool: Where data wait for the engine.
            password: What every request must give; None asks for none.
        """
        self.engine = engine
        self.spool = spool
        self.password = password
        self.pipes: dict[Ticket, ResultPipe] = {}
        self._threads = ThreadPoolExecutor(QUERIES_AT_ONCE, "query")

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await _Exchange(self, scope, receive, send).serve()
        except ClientDisconnect:
            _LOG.info("a client went away before its request was complete: nothing was done")
        except asyncio.CancelledError:
            _LOG.info("a request was given up: the front stops")

    def start(self, query: Query) -> tuple["asyncio.Future[Outcome]", Ticket]:
        """Start a query on a thread of its own."""
        ticket = Ticket()
        running = asyncio.get_running_loop().run_in_executor(self._threads, self.engine.run, query, ticket)
        return running, ticket

    def close(self, patience: float) -> bool:
        """Cancel what still runs and stop the engine. For after the event loop has ended.

        Args:
            patience: Seconds to wait for the queries to end.

        Returns:
            False if a query did not end; the engine is not stopped then.
        """
        self._threads.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + patience
        while (still := self.engine.busy()) and time.monotonic() < deadline:
            for ticket in still:
                self.engine.cancel(ticket)
                if (pipe := self.pipes.get(ticket)) is not None:
                    pipe.empty()
            time.sleep(_CANCEL_AGAIN_S)
        if still:
            return False
        self.engine.close()
        return True


class _Exchange:
    """One request and its response."""

    def __init__(self, front: Front, scope: Any, receive: Receive, send: Send) -> None:
        self._front = front
        self._scope = scope
        self._send = send
        self._headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        # Raw bytes in a query stay what they are.
        url = scope["query_string"].decode("utf-8", "surrogateescape")
        self._pairs = parse_qsl(url, keep_blank_values=True, errors="surrogateescape")
        self._reception = Reception(scope, receive, self._headers, front.spool)
        self._tag = secrets.token_hex(8)
        self._query_id = ""

    async def serve(self) -> None:
        """Answer, whatever comes of it.

        Raises:
            ClientDisconnect: The client went away before the request was complete.
        """
        method, path = self._scope["method"], self._scope["path"]
        reading = method in {"GET", "HEAD"}
        if path in _WELL or (path == "/" and reading and not dict(self._pairs).get("query")):
            await self._reply(200, {"content-type": "text/html; charset=UTF-8"}, b"Ok.\n")
        elif path != "/" or not (reading or method == "POST"):
            await self._reply(404, {"content-type": _TEXT}, f"There is no handle {method} {path}\n".encode())
        else:
            try:
                await self._query(readonly=reading)
            except ClickHouseError as error:
                await self._refuse(error)

    async def _query(self, *, readonly: bool) -> None:
        check_origin(self._headers)
        if self._front.password is not None:
            check_password(self._front.password, self._pairs, self._headers)
        asked = await self._reception.take_in(self._pairs)
        self._query_id = asked.options.query_id
        started = time.monotonic()
        try:
            await self._answer(asked, readonly=readonly)
        finally:
            asked.discard()
        _LOG.debug("query %s took %.3f s", self._query_id, time.monotonic() - started)

    async def _answer(self, asked: Prefetch, *, readonly: bool) -> None:
        insert, options = asked.intake.insert, asked.options
        if not _NAME.fullmatch(options.format):
            raise ClickHouseError.of(73, "UNKNOWN_FORMAT", f"Unknown format {options.format!r}")
        if isinstance(insert, InsertHead):
            outcome = await self._run(self._to_query(asked, insert.sql(str(asked.intake.path)), readonly=readonly))
            await self._reply(200, self._about(outcome), b"")
            return
        statement = await asyncio.to_thread(read_statement, asked.intake.text)
        if statement.streams:
            await self._stream(asked, statement, readonly=readonly)
        else:
            await self._at_once(asked, statement, readonly=readonly)

    async def _at_once(self, asked: Prefetch, statement: Statement, *, readonly: bool) -> None:
        """Run a statement with a small result, or none."""
        outcome = await self._run(self._to_query(asked, statement.text, readonly=readonly))
        name = statement.format or asked.options.format if outcome.data or statement.answers else None
        await self._result(asked, self._about(outcome, name, len(outcome.data)), io.BytesIO(outcome.data))

    async def _stream(self, asked: Prefetch, statement: Statement, *, readonly: bool) -> None:
        """Run a query with a result of any size; end it when the client goes away."""
        try:
            pipe = ResultPipe(self._front.spool.new_path())
        except OSError as error:
            raise ClickHouseError.of(
                425,
                "SYSTEM_ERROR",
                f"cannot make a pipe for the result: {error.strerror}; try again with fewer at once",
            ) from error
        sql = statement.into(str(pipe.path), asked.options.format)
        running, ticket = self._front.start(self._to_query(asked, sql, readonly=readonly))
        self._front.pipes[ticket] = pipe
        running.add_done_callback(lambda _: pipe.end())
        copying = asyncio.ensure_future(self._copy(asked, statement, pipe, running))
        leaving = asyncio.ensure_future(self._reception.gone())
        try:
            await asyncio.wait({copying, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (copying, leaving):
                if not task.done():
                    task.cancel()
            await asyncio.wait({copying, leaving})
            await self._end(running, ticket, pipe)
        if not copying.cancelled() and copying.result() == SYNTAX_ERROR:
            # Of the kind that cannot be written to a file; or malformed, and then better told of without our words.
            await self._at_once(asked, statement, readonly=readonly)

    async def _end(self, running: "asyncio.Future[Outcome]", ticket: Ticket, pipe: ResultPipe) -> None:
        """Make sure that the query has ended, then close its pipe."""
        while not running.done():
            await asyncio.to_thread(self._front.engine.cancel, ticket)
            # It may be waiting for room in the pipe.
            pipe.empty()
            await asyncio.wait({running}, timeout=_CANCEL_AGAIN_S)
        if not running.cancelled():
            running.exception()
        del self._front.pipes[ticket]
        pipe.close()

    async def _copy(
        self, asked: Prefetch, statement: Statement, pipe: ResultPipe, running: "asyncio.Future[Outcome]"
    ) -> int:
        """Send a result as it comes; return 0, or SYNTAX_ERROR if that came of it and nothing was sent."""
        name = statement.format or asked.options.format
        with self._front.spool.buffer(_WAIT_IN_MEMORY) as first:
            size, ended = 0, False
            while not ended and (asked.options.wait or size < CHUNK):
                data = await pipe.read()
                first.write(data)
                size += len(data)
                ended = not data
            if not ended:
                first.seek(0)
                headers, encoder = self._encoding(asked, self._about(None, name))
                await self._start(200, headers)
                await self._send_file(first, encoder)
                await self._send_rest(pipe, running, encoder)
                return 0
            try:
                outcome = await asyncio.shield(running)
            except ClickHouseError as error:
                if error.code == SYNTAX_ERROR and size == 0:
                    return SYNTAX_ERROR
                raise
            await self._result(asked, self._about(outcome, name, size), first)
            return 0

    async def _send_rest(self, pipe: ResultPipe, running: "asyncio.Future[Outcome]", encoder: Encoder | None) -> None:
        """Send the rest of a result as it comes, and its end, or what ended it."""
        while data := await pipe.read():
            await self._more(await _encode(encoder, data))
        try:
            await asyncio.shield(running)
        except ClickHouseError as error:
            self._log(error)
            block = exception_block(error.body(self._front.engine.version), self._tag)
            # And no end of the response: the server then cuts the connection, for clients that do not look.
            # The compressed frame does end: some decompressors hold back what they are not sure of.
            await self._more(await _encode(encoder, block) + (b"" if encoder is None else encoder.flush()))
            return
        await self._more(b"" if encoder is None else encoder.flush(), last=True)

    async def _send_file(self, file: IO[bytes], encoder: Encoder | None) -> None:
        while data := file.read(CHUNK):
            await self._more(await _encode(encoder, data))

    async def _result(self, asked: Prefetch, headers: dict[str, str], result: IO[bytes]) -> None:
        """Send a whole result."""
        size = result.seek(0, os.SEEK_END)
        result.seek(0)
        headers, encoder = self._encoding(asked, headers) if size else (headers, None)
        length = {} if encoder else {"content-length": str(size)}
        await self._start(200, {"content-type": _TEXT, **headers, **length})
        await self._send_file(result, encoder)
        await self._more(b"" if encoder is None else encoder.flush(), last=True)

    async def _refuse(self, error: ClickHouseError) -> None:
        self._log(error)
        await self._reception.drain()
        headers = {"content-type": _TEXT, "x-clickhouse-exception-code": str(error.code), **self._about(None)}
        await self._reply(error.status, headers, error.body(self._front.engine.version))

    async def _run(self, query: Query) -> Outcome:
        """Run a statement to its end, whether the client waits for it or not."""
        running, _ = self._front.start(query)
        return await asyncio.shield(running)

    def _to_query(self, asked: Prefetch, sql: bytes, *, readonly: bool) -> Query:
        options = asked.options
        return Query(
            sql=sql,
            format=options.format,
            database=options.database,
            settings=options.settings,
            parameters=options.parameters,
            readonly=readonly,
            tables=asked.tables,
        )

    def _about(self, outcome: Outcome | None, format_name: str | None = None, size: int = 0) -> dict[str, str]:
        """Return the headers of a query's response."""
        engine = self._front.engine
        headers = {
            "x-clickhouse-summary": summary(outcome, size),
            "x-clickhouse-query-id": self._query_id,
            "x-clickhouse-server-display-name": engine.name,
            "x-clickhouse-timezone": engine.timezone,
            "x-clickhouse-exception-tag": self._tag,
        }
        if format_name is not None:
            headers["x-clickhouse-format"] = format_name
            headers["content-type"] = engine.content_types.get(format_name.lower(), "application/octet-stream")
        return headers

    def _encoding(self, asked: Prefetch, headers: dict[str, str]) -> tuple[dict[str, str], Encoder | None]:
        """Choose the response's compression, and name it among the headers."""
        chosen = choose_encoder(self._headers.get("accept-encoding", "")) if asked.options.compress else None
        if chosen is None:
            return headers, None
        return {**headers, "content-encoding": chosen[0], "vary": "accept-encoding"}, chosen[1]

    def _log(self, error: ClickHouseError) -> None:
        # Not the text: it may quote data.
        _LOG.info("query %s: code %d, HTTP %d", self._query_id or "-", error.code, error.status)

    async def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        await self._start(status, {"content-type": _TEXT, **headers, "content-length": str(len(body))})
        await self._more(body, last=True)

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        pairs = [(key.encode(), value.encode("latin-1", "replace")) for key, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _more(self, body: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})


async def _encode(encoder: Encoder | None, data: bytes) -> bytes:
    return data if encoder is None else await asyncio.to_thread(encoder.compress, data)
