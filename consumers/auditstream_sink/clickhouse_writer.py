"""The sink's statements on ClickHouse: stage, classify, insert, read back, ledger.

An error is one of two kinds: ClickHouse refused the data, or the outcome of the statement is unknown. An error that is
not certainly the first kind is the second, and the batch is staged and classified again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from clickhouse_connect.driver.summary import QuerySummary

from auditstream_schemas.background import in_background
from auditstream_schemas.errors import AuditstreamError
from auditstream_sink.framing import container
from auditstream_sink.settings import SinkSettings
from auditstream_sink.statements import REFUSED, STAGE_SETTINGS, SinkStatements
from auditstream_storage import FAILURES, Connection, ErrorKind, LedgerEnd, LedgerLine, classify_error, error_text


class DataRefusedError(AuditstreamError):
    """ClickHouse could not parse the container; the stage is unchanged."""


class UnknownOutcomeError(AuditstreamError):
    """Time-out, broken connection or error status: the statement may have taken effect or not."""


class RecordStatus(NamedTuple):
    """The status of a staged record that is refused: a conflict with the first event of its id, or one of FAULTS."""

    partition: int
    offset: int
    status: str
    reason: str
    """Key of FAULTS; empty for a conflict."""
    first_seen: str
    """For a conflict, partition and offset of the first event of that id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """The staged records that are not new: their number by partition and status, and those to be dead-lettered."""

    counts: Mapping[tuple[int, str], int] = field(default_factory=dict)
    refused: Sequence[RecordStatus] = ()


class ClickHouseWriter:
    """One connection to ClickHouse, and a stage of its own. Not safe to share between threads.

    Every method but ``abandon_stage`` blocks on the network and may raise UnknownOutcomeError; it may be called
    again after that. ``instance`` is the name of this sink in the ledger.
    """

    statements: type[SinkStatements] = SinkStatements
    """A test may use another class."""

    def __init__(self, settings: SinkSettings, *, instance: str) -> None:
        self._settings, self._instance = settings, instance
        self._sql = self._new_stage()
        self._abandoned: list[SinkStatements] = []
        self._connection = Connection(
            settings,
            lambda text: UnknownOutcomeError(f"ClickHouse: {text}"),
            timeout_seconds=settings.clickhouse_timeout_seconds,
            # After a failed statement the batch is written again; the client must not resend statements on its own.
            retries=0,
        )
        self._has_stage = self._has_dropped_stale = False

    def close(self) -> None:
        """Drop the stage, if there is one."""
        for sql in (*self._abandoned, self._sql) if self._has_stage else self._abandoned:
            self._command(*sql.drop())
        self._connection.close()

    def abandon_stage(self) -> None:
        """Use tables of other names from now on; does not block.

        A statement whose outcome is unknown may still reach ClickHouse. It must find the rows that it was sent for,
        or no table at all: never a stage that was emptied and filled again meanwhile.
        """
        if self._has_stage:
            self._abandoned.append(self._sql)
            self._sql = self._new_stage()
            self._has_stage = False

    def clear_stage(self) -> None:
        """Create the stage, or empty it if it exists; drop abandoned stages.

        The first call also drops stages that other sinks left more than a day ago, when they were killed.
        """
        if not self._has_dropped_stale:
            database = self._settings.clickhouse_database
            for (name,) in self._rows(self._sql.stale_stages(), database=database):
                self._command(f"DROP TABLE IF EXISTS {database}.{name}")
            self._has_dropped_stale = True
        while self._abandoned:
            self._command(*self._abandoned[-1].drop())
            self._abandoned.pop()
        if self._has_stage:
            self._command(f"TRUNCATE TABLE {self._sql.stage_table}")
        else:
            self._has_stage = True
            self._command(*self._sql.create())

    def stage(self, head: bytes, pieces: Sequence[Sequence[memoryview]]) -> list[DataRefusedError | None]:
        """Parse several pieces into the stage at once; of each piece, all records are staged or none.

        Returns for each piece None, or why ClickHouse cannot parse a record in it.
        """
        others = [in_background(partial(self._stage_one, head, piece), "sink-stage") for piece in pieces[1:]]
        return [self._stage_one(head, piece) for piece in pieces[:1]] + [other.result() for other in others]

    def _stage_one(self, head: bytes, blocks: Sequence[memoryview]) -> DataRefusedError | None:
        with self._connection.client() as client:
            try:
                client.raw_insert(
                    self._sql.stage_table, insert_block=container(head, blocks), fmt="Avro", settings=STAGE_SETTINGS
                )
            except FAILURES as error:
                if classify_error(error) is not ErrorKind.DATA_REFUSED:
                    raise
                return DataRefusedError(error_text(error))
        return None

    def staged(self) -> int:
        """Number of records on the stage."""
        return int(self._row(f"SELECT count() FROM {self._sql.stage_table}")[0])

    def classify(self, *, now: datetime, topic_id: UUID) -> Classification:
        """Give every staged record a status. Records without one are new."""
        self._command(f"TRUNCATE TABLE {self._sql.status_table}")
        self._command(self._sql.classify(), now=_timestamp(now), topic_id=str(topic_id))
        rows = self._rows(f"SELECT partition, status, count() FROM {self._sql.status_table} GROUP BY partition, status")
        counts = {(partition, status): number for partition, status, number in rows}
        if not any(status in REFUSED for _partition, status in counts):
            return Classification(counts=counts)
        return Classification(counts=counts, refused=[RecordStatus(*row) for row in self._rows(self._sql.refused())])

    def insert(self, *, now: datetime, topic_id: UUID) -> None:
        """Store the new records. They are de-duplicated already, so ClickHouse need not do it on insert."""
        self._command(
            self._sql.insert(),
            settings={"async_insert": 0, "optimize_on_insert": 0, "max_partitions_per_insert_block": 0},
            now=_timestamp(now),
            topic=self._settings.topic,
            topic_id=str(topic_id),
        )

    def read_back(self, *, topic_id: UUID) -> tuple[int, int]:
        """How many new records are not stored, and how many records the stage has.

        Events that another sink stored at the same time are entered into the table of copies.
        """
        is_stored, staged = self._row(self._sql.is_stored(), topic_id=str(topic_id))
        if is_stored:
            return 0, int(staged)
        self._command(self._sql.insert_copies(), settings={"async_insert": 0})
        return int(self._row(self._sql.missing(), topic_id=str(topic_id))[0]), int(staged)

    def ledger_ends(self, *, topic_id: UUID) -> dict[int, LedgerEnd]:
        """By partition, where its ledger ends; without partitions that have no line."""
        rows = self._rows(self._sql.ledger_ends(), topic=self._settings.topic, topic_id=str(topic_id))
        return {int(p): LedgerEnd(end=int(last), line_first=int(first)) for p, first, last in rows}

    def fencing_time(self) -> int:
        """ClickHouse's clock, nanoseconds since 1970. All sinks share it; their own clocks may differ."""
        return int(self._row("SELECT toUnixTimestamp64Nano(now64(9))")[0])

    def ledger_ends_since(self, known: Mapping[int, LedgerEnd], *, topic_id: UUID) -> dict[int, tuple[int, bool]]:
        """By partition, the last offset in its ledger, and whether this sink wrote that line.

        Lines older than those in ``known`` are not read. Partitions without a line are left out.
        """
        since = {partition: ledger.line_first or 0 for partition, ledger in known.items()}
        rows = self._rows(self._sql.ledger_ends_since(since), topic=self._settings.topic, topic_id=str(topic_id))
        return {int(partition): (int(end), instance == self._instance) for partition, end, instance in rows}

    def write_lines(self, lines: Sequence[LedgerLine], *, now: datetime, topic_id: UUID) -> None:
        """Write lines to the ledger, all or none. Writing them again changes nothing."""
        self._command(
            self._sql.ledger_lines(lines),
            settings={"async_insert": 0},
            topic=self._settings.topic,
            topic_id=str(topic_id),
            instance=self._instance,
            now=_timestamp(now),
        )

    def _new_stage(self) -> SinkStatements:
        return self.statements(database=self._settings.clickhouse_database, stage=uuid4().hex[:12])

    def _command(self, *statements: str, settings: dict[str, Any] | None = None, **parameters: object) -> None:
        for statement in statements:
            with self._connection.client() as client:
                answer = client.command(statement, parameters=dict(parameters), settings=settings, use_database=False)
            if not isinstance(answer, QuerySummary):
                # Our commands have no answer: a text under status 200 is an exception that came after the status.
                raise UnknownOutcomeError(f"ClickHouse: {str(answer)[:300]}")

    def _rows(self, query: str, **parameters: object) -> Sequence[Sequence[Any]]:
        with self._connection.client() as client:
            return client.query(query, parameters=dict(parameters)).result_rows

    def _row(self, query: str, **parameters: object) -> Sequence[Any]:
        """The row of a query that always has exactly one."""
        rows = self._rows(query, **parameters)
        if not rows:
            raise UnknownOutcomeError("ClickHouse: the answer has no row")
        return rows[0]


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
