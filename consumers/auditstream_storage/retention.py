"""How far back events are kept, and what to say when more is asked for."""

import calendar
from datetime import UTC, datetime

from auditstream_schemas.timestamp import format_timestamp, from_datetime

RETENTION_MONTHS = 12
"""Events older than so many months are deleted, a month at a time."""


def notice(start: int, *, now: datetime) -> str | None:
    """What to say about a range that begins before the retention does; None if it does not.

    Args:
        start: First instant of the range, nanoseconds since the epoch.
        now: The time of the export.
    """
    kept_from = from_datetime(_months_before(now.astimezone(UTC), RETENTION_MONTHS))
    if start >= kept_from:
        return None
    return (
        f"the range begins at {format_timestamp(start)}, but events are kept for {RETENTION_MONTHS} months, at this "
        f"moment back to {format_timestamp(kept_from)}: of older ones some or all are deleted already"
    )


def _months_before(moment: datetime, months: int) -> datetime:
    count = moment.year * 12 + moment.month - 1 - months
    year, month = divmod(count, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day, microsecond=0)
