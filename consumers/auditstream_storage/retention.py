"""The retention: the age at which events are deleted, and the notice about a range that begins before it."""

import calendar
from datetime import UTC, datetime

from auditstream_schemas.timestamp import format_timestamp, from_datetime

RETENTION_MONTHS = 12
"""Events older than this are deleted, a calendar month at a time. The migrations write it into the table's TTL."""


def notice(start: int, *, now: datetime) -> str | None:
    """The notice about a range that begins before the retention, or None; ``start`` in nanoseconds since the epoch."""
    oldest = from_datetime(_months_before(now.astimezone(UTC), RETENTION_MONTHS))
    if start >= oldest:
        return None
    return (
        f"the range begins at {format_timestamp(start)}, but events are kept for {RETENTION_MONTHS} months, now back "
        f"to {format_timestamp(oldest)}: some or all of the older events are deleted already"
    )


def _months_before(moment: datetime, months: int) -> datetime:
    count = moment.year * 12 + moment.month - 1 - months
    year, month = divmod(count, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day, microsecond=0)
