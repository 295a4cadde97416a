"""The ClickHouse engine (chDB) in this process: one connection a query, its settings its own.

chDB runs one engine a process; a connection costs a tenth of a millisecond, so each query gets one and
nothing that it sets can reach another. A query runs on the thread that asks for it; that is how it is found
when it has to be cancelled.
"""

import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auditstream_local.clickhouse_errors import ClickHouseError
from auditstream_local.clickhouse_statement import quote
from auditstream_schemas.errors import OperationError
from auditstream_schemas.extras import install_hint

# chDB takes "1" for "SELECT 1", as clickhouse-local does; a server does not.
_SERVER_LIKE = {"implicit_select": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalTable:
    """A table that exists for one query.

    Attributes:
        name: What the query calls it.
        structure: Its columns, ``name Type, …``.
        format: Format of its data.
        path: File that holds them.
    """

    name: str
    structure: str
    format: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One statement and everything that holds for it alone.

    Attributes:
        sql: The statement.
        format: Output format where the statement names none.
        database: Database of unqualified names; empty for the default.
        settings: ClickHouse settings.
        parameters: Values for ``{name:Type}``, escaped as in TabSeparated.
        readonly: Refuse everything that changes data.
        tables: External data.
    """

    sql: bytes
    format: str = "TabSeparated"
    database: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    readonly: bool = False
    tables: tuple[ExternalTable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a query gave.

    Attributes:
        data: Its result, in the output format.
        rows_read: Rows read from tables.
        bytes_read: Bytes read from tables, uncompressed.
        rows_written: Rows stored.
        bytes_written: Bytes stored, uncompressed.
        elapsed_ns: Nanoseconds it took.
    """

    data: bytes
    rows_read: int
    bytes_read: int
    rows_written: int
    bytes_written: int
    elapsed_ns: int


class Ticket:
    """The hold on one query: lets another thread cancel it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._cancelled = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Mark this thread as the one that runs the query.

        Raises:
            ClickHouseError: It was cancelled before it began.
        """
        with self._lock:
            if self._cancelled:
                raise ClickHouseError.of(394, "QUERY_WAS_CANCELLED", "Query was cancelled")
            self._thread = threading.get_native_id()
        try:
            yield
        finally:
            with self._lock:
                self._thread = None

    @contextmanager
    def cancelling(self) -> Iterator[int | None]:
        """Give the thread that runs the query, if one does, and keep it from going on to another query."""
        with self._lock:
            self._cancelled = True
            yield self._thread


class Engine:
    """The engine over one data directory.

    Attributes:
        version: Version of ClickHouse.
        timezone: Time zone of the engine.
        name: Display name of the server.
        content_types: Content type of each output format, keyed by the format's lower-case name.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open a data directory, making it if it is missing. Takes half a second.

        Raises:
            OperationError: It is in use by another process, or cannot be opened.
        """
        self._path = str(data_dir.resolve() / "engine")
        if "?" in self._path:
            raise OperationError(f"the data directory must not have a '?' in its path: {data_dir}")
        try:
            (data_dir / "engine").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OperationError(f"cannot use the data directory {data_dir}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperationError(
                f"the data directory {data_dir} is in use by another ClickHouse front: stop that one, "
                "or choose another directory"
            ) from None
        # Servers run on UTC; the engine takes the process's zone, when it is loaded.
        os.environ["TZ"] = "UTC"
        try:
            from chdb import _chdb  # noqa: PLC0415 - 530 MB, loaded by the process that serves it alone
        except ImportError as error:
            raise OperationError(f"the local ClickHouse needs chDB: {install_hint('local')}") from error
        self._busy: set[Ticket] = set()
        self._connect: Any = vars(_chdb)["connect"]
        try:
            # Held open: the engine stops with its last connection.
            self._base = self._connect(self._path)
        except RuntimeError as error:
            raise OperationError(f"chDB cannot open {data_dir}: {error}") from error
        facts = self.run(Query(sql=b"SELECT version(), timezone(), displayName()"), Ticket()).data.decode()
        self.version, self.timezone, self.name = facts.rstrip("\n").split("\t")
        formats = self.run(Query(sql=b"SELECT lower(name), content_type FROM system.formats"), Ticket())
        self.content_types: dict[str, str] = dict(line.split("\t") for line in formats.data.decode().splitlines())

    def run(self, query: Query, ticket: Ticket) -> Outcome:
        """Run a statement; blocks until it has ended. Any number of threads may call it at once.

        Raises:
            ClickHouseError: The engine refused it, failed, or it was cancelled.
        """
        connection = self._connect(self._path)
        self._busy.add(ticket)
        try:
            with ticket.running(), _errors():
                self._prepare(connection, query)
                result = connection.query(query.sql, query.format, params=dict(query.parameters))
                return Outcome(
                    data=result.bytes(),
                    rows_read=result.rows_read(),
                    bytes_read=result.bytes_read(),
                    rows_written=result.rows_written(),
                    bytes_written=result.bytes_written(),
                    elapsed_ns=int(result.elapsed() * 1e9),
                )
        finally:
            self._busy.discard(ticket)
            connection.close()

    def busy(self) -> list[Ticket]:
        """Return the holds on the queries that run now."""
        return list(self._busy)

    def cancel(self, ticket: Ticket) -> None:
        """Ask a query to stop, and keep it from starting. Does not wait for it.

        A query that is just being taken up may be missed: call it again until the query has ended.
        """
        with ticket.cancelling() as thread:
            if thread is not None:
                kill = f"KILL QUERY WHERE has(thread_ids, {thread})".encode()
                self.run(Query(sql=kill), Ticket())

    def close(self) -> None:
        """Stop the engine. No query may run any more."""
        self._base.close()
        os.close(self._lock)

    def _prepare(self, connection: Any, query: Query) -> None:
        for table in query.tables:
            name = "`" + table.name.replace("\\", "\\\\").replace("`", "\\`") + "`"
            connection.query(f"CREATE TEMPORARY TABLE {name} ({table.structure}) ENGINE = Memory")
            source = quote(str(table.path)) + b" COMPRESSION 'none' FORMAT " + table.format.encode()
            connection.query(b"INSERT INTO " + name.encode() + b" FROM INFILE " + source)
        if query.database:
            connection.query(b"USE `" + query.database.replace("\\", "\\\\").replace("`", "\\`").encode() + b"`")
        settings = {**_SERVER_LIKE, **query.settings}
        assignments = [f"`{key}` = ".encode() + quote(value) for key, value in settings.items()]
        connection.query(b"SET " + b", ".join(assignments))
        # The last one: with it no other setting could be changed.
        if query.readonly and settings.get("readonly", "0") == "0":
            connection.query("SET readonly = 2")


@contextmanager
def _errors() -> Iterator[None]:
    """Turn what chDB raises into the engine's own error."""
    try:
        yield
    except UnicodeDecodeError as error:
        # chDB decodes the text of an exception strictly; the text as it was is in the error.
        raise ClickHouseError.from_engine(bytes(error.object)) from None
    except RuntimeError as error:
        raise ClickHouseError.from_engine(str(error).encode("utf-8", "backslashreplace")) from None
