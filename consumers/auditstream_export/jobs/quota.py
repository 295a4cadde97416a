"""How many exports may be asked for."""

from auditstream_export.jobs.export_job import ExportJob
from auditstream_export.jobs.job_store import JobStore
from auditstream_schemas.timestamp import NANOSECONDS, format_timestamp

_DAY = 24 * 3600 * NANOSECONDS


def over_quota(store: JobStore, job: ExportJob, quota: int) -> str | None:
    """Why a job may not be run, for people; None if it may. Blocks on ClickHouse.

    Jobs count by the order in which they were asked for, so whoever looks later says the same.

    Args:
        store: The state of the others.
        job: The job.
        quota: Jobs of a scope in a day (UTC); 0 for no limit.

    Raises:
        ExportSourceError: ClickHouse failed.
    """
    if quota == 0:
        return None
    full = [scope for scope, before in store.asked_before(job).items() if before >= quota]
    if not full:
        return None
    until = job.requested_at - job.requested_at % _DAY + _DAY
    return (
        f"{quota} exports were asked for {full[0] or 'all organisations'} today, which is the quota: "
        f"the next may be at {format_timestamp(until)}"
    )
