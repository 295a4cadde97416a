"""ClickHouse as the sink sees it: stage, judge, insert, read back, ledger.

An error is one of two kinds: the data was refused, or the outcome is unknown. Every error that is not surely of the
first kind is of the second, and the batch is classified again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from clickhouse_connect.driver.summary import QuerySummary

from auditstream_schemas.background import in_background
from auditstream_schemas.errors import AuditstreamError
from auditstream_sink.framing import container
from auditstream_sink.settings import SinkSettings
from auditstream_sink.statements import REFUSED, STAGE_SETTINGS, SinkStatements
from auditstream_storage import FAILURES, Connection, ErrorKind, LedgerEnd, LedgerLine, classify_error, error_text


class DataRefusedError(AuditstreamError):
    """ClickHouse could not read the container; the stage is as it was."""


class UnknownOutcomeError(AuditstreamError):
    """Time-out, broken connection, error status: the statement may have taken effect or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStatus:
    """A staged record that is refused.

    Attributes:
        partition: Kafka partition.
        offset: Kafka offset.
        verdict: ``invalid``, ``conflict`` or ``expired``.
        reason: The fault's name; empty for a conflict.
        other: For a conflict, where the first event of that id came from.
    """

    partition: int
    offset: int
    verdict: str
    reason: str
    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What the batch holds besides new events.

    Attributes:
        counts: Records by (partition, verdict).
        refused: Records for the dead letters.
    """

    counts: Mapping[tuple[int, str], int]
    refused: Sequence[RecordStatus]


class ClickHouseWriter:
    """One sink's connection to ClickHouse. Every method blocks on the network.

    Every method may raise UnknownOutcomeError; each may be called again after it.
    """

    def __init__(self, settings: SinkSettings, *, instance: str) -> None:
        self._settings = settings
        self._instance = instance
        self._sql = self._new_stage()
        self._left: list[SinkStatements] = []
        self._connection = Connection(
            settings,
            lambda text: UnknownOutcomeError(f"ClickHouse: {text}"),
            timeout_seconds=settings.clickhouse_timeout_seconds,
            # A statement that failed half-way leads to a new attempt of the batch, never to a resend by the client.
            retries=0,
        )
        self._has_stage = self._has_cleared = False

    def close(self) -> None:
        """Drop the stage, if there is one."""
        if not self._connection.is_open:
            return
        for sql in (*self._left, self._sql) if self._has_stage else self._left:
            self._run(sql.drop())
        self._connection.close()

    def leave_stage(self) -> None:
        """Use tables of other names from here on; blocks on nothing.

        A statement whose outcome is unknown may still be on its way. It must find what it was sent for, or
        nothing at all: never a stage that was emptied and filled again under it.
        """
        if self._has_stage:
            self._left.append(self._sql)
            self._sql = self._new_stage()
            self._has_stage = False

    def clear_stage(self) -> None:
        """Make the stage, or empty it where it was made before.

        The first time, stages of sinks that were killed more than a day ago are cleared away, too.
        """
        if not self._has_cleared:
            database = self._settings.clickhouse_database
            for (name,) in self._rows(self._sql.stale_stages(), database=database):
                self._command(f"DROP TABLE IF EXISTS {database}.{name}")
            self._has_cleared = True
        while self._left:
            self._run(self._left[-1].drop())
            self._left.pop()
        if self._has_stage:
            self._command(self._sql.empty())
        else:
            self._has_stage = True
            self._run(self._sql.create())

    def stage(self, head: bytes, pieces: Sequence[Sequence[memoryview]]) -> list[DataRefusedError | None]:
        """Parse blocks under a container's head into the stage, all pieces at once; of each all records or none.

        Returns:
            For each piece None, or why ClickHouse cannot read a record in it.
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
        """Records on the stage."""
        return int(self._row(self._sql.staged())[0])

    def judge(self, *, now: datetime, topic_id: UUID) -> Classification:
        """Give every staged record its verdict. Staged records without one are new."""
        self._command(f"TRUNCATE TABLE {self._sql.verdict_table}")
        self._command(self._sql.judge(), now=_timestamp(now), topic_id=str(topic_id))
        counts = {(int(p), str(v)): int(n) for p, v, n in self._rows(self._sql.verdicts())}
        if not any(verdict in REFUSED for _partition, verdict in counts):
            return Classification(counts=counts, refused=())
        refused = [
            RecordStatus(partition=int(p), offset=int(o), verdict=str(v), reason=str(r), other=str(x))
            for p, o, v, r, x in self._rows(self._sql.refused())
        ]
        return Classification(counts=counts, refused=refused)

    def insert(self, *, now: datetime, topic_id: UUID) -> None:
        """Store the new records. Already de-duplicated, hence no optimisation on insert."""
        self._command(
            self._sql.insert(),
            settings={"async_insert": 0, "optimize_on_insert": 0, "max_partitions_per_insert_block": 0},
            now=_timestamp(now),
            topic=self._settings.topic,
            topic_id=str(topic_id),
        )

    def read_back(self, *, topic_id: UUID) -> tuple[int, int]:
        """How many new records are not stored, and how many records the stage holds.

        Events that another sink stored, too, are noted.
        """
        agree, staged = self._row(self._sql.agreement(), topic_id=str(topic_id))
        if agree:
            return 0, int(staged)
        self._command(self._sql.note_copies(), settings={"async_insert": 0})
        return int(self._row(self._sql.missing(), topic_id=str(topic_id))[0]), int(staged)

    def tails(self, *, topic_id: UUID) -> dict[int, LedgerEnd]:
        """Where the books end, for every partition that has any."""
        rows = self._rows(self._sql.tails(), topic=self._settings.topic, topic_id=str(topic_id))
        return {int(p): LedgerEnd(end=int(last), line_first=int(first)) for p, first, last in rows}

    def fencing_time(self) -> int:
        """ClickHouse's clock, nanoseconds since 1970."""
        return int(self._row(self._sql.fencing_time())[0])

    def ledger_ends_since(self, known: Mapping[int, LedgerEnd], *, topic_id: UUID) -> dict[int, tuple[int, bool]]:
        """The last accounted offset of partitions, and whether this sink accounted for it.

        Args:
            known: A line of each partition that is known to be there; older ones are not looked at.
            topic_id: Whose books.

        Returns:
            By partition; without those that have no line.
        """
        since = {partition: tail.line_first or 0 for partition, tail in known.items()}
        rows = self._rows(self._sql.lines_since(since), topic=self._settings.topic, topic_id=str(topic_id))
        return {int(partition): (int(end), instance == self._instance) for partition, end, instance in rows}

    def write_lines(self, lines: Sequence[LedgerLine], *, now: datetime, topic_id: UUID) -> None:
        """Enter lines into the books, all or none. Entering them again changes nothing."""
        self._command(
            self._sql.ledger_lines(lines),
            settings={"async_insert": 0},
            topic=self._settings.topic,
            topic_id=str(topic_id),
            instance=self._instance,
            now=_timestamp(now),
        )

    def _new_stage(self) -> SinkStatements:
        return SinkStatements(database=self._settings.clickhouse_database, stage=uuid4().hex[:12])

    def _run(self, statements: Sequence[str]) -> None:
        for statement in statements:
            self._command(statement)

    def _command(self, statement: str, *, settings: dict[str, Any] | None = None, **parameters: object) -> None:
        with self._connection.client() as client:
            answer = client.command(statement, parameters=dict(parameters), settings=settings, use_database=False)
        if not isinstance(answer, QuerySummary):
            # None of our commands has an answer: what comes with a status of 200 is an exception that came late.
            raise UnknownOutcomeError(f"ClickHouse: {str(answer)[:300]}")

    def _rows(self, query: str, **parameters: object) -> Sequence[Sequence[Any]]:
        with self._connection.client() as client:
            rows: Sequence[Sequence[Any]] = client.query(query, parameters=dict(parameters)).result_rows
        return rows

    def _row(self, query: str, **parameters: object) -> Sequence[Any]:
        """The one row of a query that always has one."""
        rows = self._rows(query, **parameters)
        if not rows:
            raise UnknownOutcomeError("ClickHouse: an answer without its row")
        return rows[0]


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
