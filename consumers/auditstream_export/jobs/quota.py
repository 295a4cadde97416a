"""The quota of exports per scope and day."""

from auditstream_export.jobs.export_job import ExportJob
from auditstream_export.jobs.job_store import JobStore
from auditstream_schemas.timestamp import NANOSECONDS, format_timestamp

_DAY = 24 * 3600 * NANOSECONDS


def over_quota(store: JobStore, job: ExportJob, quota: int) -> str | None:
    """Return why a job exceeds the quota, for people; None if it does not. Blocks on ClickHouse.

    ``quota`` is the number of jobs per scope and day (UTC); 0 for no limit. Jobs count in the order of their requests,
    so the answer is the same when the job is requested and when it runs.

    Raises:
        ExportSourceError: ClickHouse failed.
    """
    if quota == 0:
        return None
    scopes = [scope for scope, earlier in store.asked_before(job).items() if earlier >= quota]
    if not scopes:
        return None
    tomorrow = job.requested_at - job.requested_at % _DAY + _DAY
    return (
        f"{quota} exports were requested for {scopes[0] or 'all organisations'} today, which is the quota: "
        f"request the next after {format_timestamp(tomorrow)}"
    )
