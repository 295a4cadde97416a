"""Taking in a request: its options, its statement, the data behind it, external tables."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from auditstream_local.clickhouse_body import MAX_QUERY_BYTES, BatchBuilder, Decoder, Spool
from auditstream_local.clickhouse_engine import ExternalTable
from auditstream_local.clickhouse_errors import ClickHouseError
from auditstream_local.clickhouse_request import Options, read_options

CHUNK = 1024 * 1024
_SMALL = 64 * 1024

Receive = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefetch:
    """A request, taken in.

    Attributes:
        options: What holds for it.
        intake: Its statement and data.
        tables: Its external tables.
    """

    options: Options
    intake: BatchBuilder
    tables: tuple[ExternalTable, ...] = ()

    def discard(self) -> None:
        """Remove what it left in the spool."""
        self.intake.discard()
        for table in self.tables:
            table.path.unlink(missing_ok=True)


class Reception:
    """Takes in one request."""

    def __init__(self, scope: Any, receive: Receive, headers: Mapping[str, str], spool: Spool) -> None:
        """Nothing is read yet."""
        self._scope = scope
        self._receive = receive
        self._headers = headers
        self._spool = spool
        self._complete = False

    async def take_in(self, pairs: list[tuple[str, str]]) -> Prefetch:
        """Read the whole body.

        Args:
            pairs: Parameters of the URL.

        Raises:
            ClickHouseError: The request is malformed or refused.
            ClientDisconnect: The client went away before the body was complete; nothing is left of it.
        """
        if self._headers.get("content-type", "").startswith("multipart/form-data"):
            return await self._take_in_form(pairs)
        options = read_options(pairs, self._headers)
        start = (options.query + "\n").encode("utf-8", "surrogateescape") if options.query else b""
        intake = BatchBuilder(start, Decoder(self._headers.get("content-encoding", "")), self._spool)
        try:
            async for data in self._body():
                # Work of milliseconds, on the disk and in decompression, goes to another thread.
                if len(data) < _SMALL:
                    intake.feed(data)
                else:
                    await asyncio.to_thread(intake.feed, data)
            intake.finish()
        except BaseException:
            intake.discard()
            raise
        return Prefetch(options=options, intake=intake)

    async def drain(self) -> None:
        """Read what is left of the body, so that the client comes to read why it was refused."""
        if not self._complete:
            async for _ in self._body():
                pass

    async def gone(self) -> None:
        """Wait until the client has gone away. For after the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _body(self) -> AsyncIterator[bytes]:
        parts: list[bytes] = []
        size = 0
        while not self._complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            data = message.get("body", b"")
            parts.append(data)
            size += len(data)
            self._complete = not message.get("more_body", False)
            if size >= CHUNK or (self._complete and size):
                yield parts[0] if len(parts) == 1 else b"".join(parts)
                parts, size = [], 0

    async def _take_in_form(self, pairs: list[tuple[str, str]]) -> Prefetch:
        try:
            form = await Request(self._scope, self._receive).form(
                max_files=1000, max_fields=100_000, max_part_size=MAX_QUERY_BYTES
            )
        except MultiPartException as error:
            raise ClickHouseError.of(36, "BAD_ARGUMENTS", f"malformed multipart form: {error.message}") from error
        self._complete = True
        fields = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
        files = {key: value for key, value in form.multi_items() if isinstance(value, UploadFile)}
        options = read_options([*pairs, *fields], self._headers, frozenset(files))
        intake = BatchBuilder(options.query.encode("utf-8", "surrogateescape"), Decoder(""), self._spool)
        tables: list[ExternalTable] = []
        try:
            intake.finish()
            for name, file in files.items():
                tables.append(await self._external(name, options.external[name], file))
        except BaseException:
            Prefetch(options=options, intake=intake, tables=tuple(tables)).discard()
            raise
        finally:
            await form.close()
        return Prefetch(options=options, intake=intake, tables=tuple(tables))

    async def _external(self, name: str, said: Mapping[str, str], file: UploadFile) -> ExternalTable:
        structure = said.get("structure") or columns_of(said.get("types", ""))
        if not structure:
            raise ClickHouseError.of(
                36, "BAD_ARGUMENTS", f"external table {name!r} needs its columns: give {name}_structure or {name}_types"
            )
        path = self._spool.new_path()
        with path.open("xb") as copy:
            while data := await file.read(CHUNK):
                copy.write(data)
        return ExternalTable(name=name, structure=structure, format=said.get("format") or "TabSeparated", path=path)


def columns_of(types: str) -> str:
    """Return a structure of columns ``_1``, ``_2`` … for a list of types."""
    found, depth, start = [], 0, 0
    for index, char in enumerate(types):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            found.append(types[start:index])
            start = index + 1
    found.append(types[start:])
    return ", ".join(f"_{number} {name.strip()}" for number, name in enumerate(found, start=1) if name.strip())
