"""The state of export jobs in ClickHouse."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, get_args
from uuid import UUID

from auditstream_export.jobs.export_job import ExportJob, JobFile, JobState, job_from_request, request_json
from auditstream_export.query.ledger_extract import read_ledger
from auditstream_export.query.watermark import Watermark
from auditstream_schemas.errors import ExportError, ExportSourceError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import NANOSECONDS, format_timestamp
from auditstream_storage import Connection

_TIMEOUT_SECONDS = 30
_DAY = 24 * 3600 * NANOSECONDS
_TIMES = ("queued_at", "changed_at", "started_at", "ended_at", "expires_at")
_PLAIN = ("version", "state", "worker", "directory", "rows", "total", "rate", "manifest", "key_id", "error")
_CELLS = ("request", "watermark", "files", *_PLAIN, *(f"toUnixTimestamp64Nano({name})" for name in _TIMES))
_SELECT = f"SELECT {', '.join(_CELLS)} FROM {{database:Identifier}}.exports"


class JobStore:
    """Reads and writes the state of jobs. Safe to share between threads; connects when it is first used.

    Every method blocks on ClickHouse and may raise ExportSourceError, after which it may be called again.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._database = settings.clickhouse_database
        self._connection = Connection(
            settings,
            lambda text: ExportSourceError(f"ClickHouse failed, which stores the state of exports: {text}"),
            timeout_seconds=_TIMEOUT_SECONDS,
            retries=0,
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def now(self) -> int:
        """The time by ClickHouse's clock, nanoseconds since the epoch. The clocks of exporters may differ."""
        return int(self._rows("SELECT toUnixTimestamp64Nano(now64(9))")[0][0])

    def watermark(self) -> Watermark:
        """The end of the ledger of every partition."""
        return read_ledger(self._rows, None).watermark

    def write(self, job: ExportJob) -> None:
        """Write a job's state. It has no effect if this version or a higher one is stored."""
        row: dict[str, object] = {name: getattr(job, name) for name in _PLAIN}
        times = {name: getattr(job, name) for name in ("requested_at", *_TIMES)}
        row |= {name: None if value is None else format_timestamp(value) for name, value in times.items()}
        row |= {
            "id": str(job.id),
            "scopes": list(job.scopes),
            "requester": job.requester.id,
            "request": request_json(job),
            "watermark": json.dumps(job.watermark.to_dict()) if job.watermark else "",
            "files": json.dumps([asdict(file) for file in job.files]),
        }
        with self._connection.client() as client:
            client.raw_insert(
                f"{self._database}.export_jobs",
                insert_block=json.dumps(row),
                fmt="JSONEachRow",
                settings={"async_insert": 0, "date_time_input_format": "best_effort"},
            )

    def job(self, id: UUID) -> ExportJob | None:
        """One job, or None."""
        rows = self._rows(f"{_SELECT} WHERE id = {{id:UUID}}", {"id": str(id)})
        return _job(rows[0]) if rows else None

    def jobs(self, scopes: Sequence[str] | None, *, limit: int) -> list[ExportJob]:
        """The latest jobs of at least one of these scopes, newest first; None for all scopes."""
        where = "true" if scopes is None else "hasAny(scopes, {scopes:Array(String)})"
        sql = f"{_SELECT} WHERE {where} ORDER BY requested_at DESC, id LIMIT {{limit:UInt32}}"
        rows = self._rows(sql, {"limit": limit, "scopes": list(scopes or ())})
        return [_job(row) for row in rows]

    def expired(self, now: int) -> list[ExportJob]:
        """Up to 100 finished jobs whose files have expired by ``now``, nanoseconds since the epoch."""
        is_expired = "state = 'finished' AND expires_at <= fromUnixTimestamp64Nano({now:Int64}, 'UTC')"
        return [_job(row) for row in self._rows(f"{_SELECT} WHERE {is_expired} LIMIT 100", {"now": now})]

    def cancel(self, id: UUID) -> None:
        """Cancel a job. It has no effect on a job that has ended."""
        with self._connection.client() as client:
            client.command(
                f"INSERT INTO {self._database}.export_cancels SELECT {{id:UUID}}, now64(9)",
                parameters={"id": str(id)},
                settings={"async_insert": 0},
                use_database=False,
            )

    def over_quota(self, job: ExportJob, quota: int) -> str | None:
        """Return why a job exceeds the quota, for people; None if it does not.

        The quota is the number of jobs per scope and day (UTC), 0 for no limit. Failed jobs are not counted; a job of
        all scopes counts for the empty id. Only earlier requests count, so the result is the same when the job is
        requested and when it runs.
        """
        if quota == 0:
            return None
        day = job.requested_at - job.requested_at % _DAY
        rows = self._rows(
            "SELECT scope FROM (SELECT id, requested_at, state, scopes FROM {database:Identifier}.export_jobs FINAL)"
            " ARRAY JOIN if(empty(scopes), [''], scopes) AS scope"
            " WHERE state != 'failed' AND scope IN {scopes:Array(String)}"
            " AND requested_at >= fromUnixTimestamp64Nano({day:Int64}, 'UTC')"
            " AND (requested_at, id) < (fromUnixTimestamp64Nano({at:Int64}, 'UTC'), {id:UUID})"
            " GROUP BY scope HAVING count() >= {quota:UInt64} LIMIT 1",
            {"scopes": list(job.scopes) or [""], "day": day, "at": job.requested_at, "id": str(job.id), "quota": quota},
        )
        if not rows:
            return None
        return (
            f"{quota} exports were requested for {rows[0][0] or 'all organisations'} today, which is the quota: "
            f"request the next after {format_timestamp(day + _DAY)}"
        )

    def _rows(self, sql: str, parameters: Mapping[str, object] | None = None) -> Sequence[Sequence[Any]]:
        values = {"database": self._database, **(parameters or {})}
        with self._connection.client() as client:
            rows: Sequence[Sequence[Any]] = client.query(sql, parameters=values).result_rows
        return rows


def _job(row: Sequence[Any]) -> ExportJob:
    request, watermark, files, *values = row
    plain = dict(zip(_PLAIN, values[: len(_PLAIN)], strict=True))
    times = dict(zip(_TIMES, values[len(_PLAIN) :], strict=True))
    if plain["state"] not in get_args(JobState):
        raise ExportError(f"a job in ClickHouse has the state {plain['state']!r}, which this auditstream does not know")
    return replace(
        job_from_request(request),
        watermark=Watermark.from_json(json.loads(watermark)) if watermark else None,
        files=tuple(JobFile(**file) for file in json.loads(files)),
        **plain,
        **times,
    )
