"""Instants as whole nanoseconds since 1970-01-01T00:00:00Z, and their ISO-8601 text.

Nothing is converted to a float or a datetime on the way, because both round nanoseconds.

The text is ``YYYY-MM-DDThh:mm[:ss[.fraction]]`` with one to nine fractional digits and a zone: ``Z``,
``+hh:mm``, ``+hhmm`` or ``+hh``. A space may replace the ``T``, a comma the dot. Two special cases:

- ``24:00:00`` is the following midnight, as in ISO-8601.
- Second ``60`` is refused. Unix time has no number for a leap second, so storing one would silently move the
  event by a second. The emitter chooses the second before or after it.
"""

import datetime as dt
import re

from auditstream_schemas.faults import Fault, shown

NANOSECONDS = 1_000_000_000
MIN_TIMESTAMP = -2_208_988_800 * NANOSECONDS
"""1900-01-01T00:00:00Z, the first instant of ClickHouse's DateTime64."""
MAX_TIMESTAMP = 2**63 - 1
"""2262-04-11T23:47:16.854775807Z, the largest value of a signed 64-bit integer."""

_RANGE = "from 1900-01-01T00:00:00Z to 2262-04-11T23:47:16.854775807Z"
_EXPECTED = "ISO-8601 with a zone and up to nine fractional digits, such as 2017-12-21T13:50:54.474Z"
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?([Zz]|([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_timestamp(text: str) -> int:
    """Read ISO-8601 text as nanoseconds since the epoch.

    Raises:
        Fault: The text is not an instant between 1900 and 2262. The message names the right form.
    """
    try:
        return _parse(text)
    except ValueError as error:
        raise Fault(shown(text), str(error)) from None


def from_datetime(moment: dt.datetime) -> int:
    """Convert a datetime that has a zone to nanoseconds since the epoch.

    Raises:
        Fault: It has no zone, or lies outside 1900 to 2262.
    """
    if moment.utcoffset() is None:
        raise Fault("a datetime without a zone", "one with: datetime.now(timezone.utc), not datetime.now()")
    since = moment - _EPOCH
    return in_range((since.days * 86_400 + since.seconds) * NANOSECONDS + since.microseconds * 1000)


def in_range(nanoseconds: int) -> int:
    """Return the nanoseconds, or raise a `Fault` if ClickHouse's DateTime64(9) does not have them: 1900 to 2262."""
    if MIN_TIMESTAMP <= nanoseconds <= MAX_TIMESTAMP:
        return nanoseconds
    raise Fault(shown(nanoseconds), f"nanoseconds since 1970 of an instant {_RANGE}")


def format_timestamp(nanoseconds: int) -> str:
    """Write nanoseconds since the epoch as ISO-8601 in UTC, with no more fractional digits than needed."""
    seconds, fraction = divmod(nanoseconds, NANOSECONDS)
    days, second_of_day = divmod(seconds, 86_400)
    minutes, second = divmod(second_of_day, 60)
    hour, minute = divmod(minutes, 60)
    date = dt.date.fromordinal(days + _EPOCH_DAY).isoformat()
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{date}T{hour:02d}:{minute:02d}:{second:02d}{digits}Z"


def _parse(text: str) -> int:
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(_EXPECTED)
    year, month, day, hour, minute, second, fraction, zone, sign, zone_hour, zone_minute = match.groups()
    if zone is None:
        raise ValueError("a zone at the end: Z for UTC, or an offset such as +02:00 (without a zone it is ambiguous)")
    if fraction is not None and len(fraction) > 9:
        raise ValueError("nine fractional digits at most (nanoseconds); further digits would be lost")
    seconds = _second_of_day(int(hour), int(minute), int(second or 0), int(fraction or 0))
    if sign is not None:
        hours, minutes = int(zone_hour), int(zone_minute or 0)
        if hours > 23 or minutes > 59:
            raise ValueError("an offset from -23:59 to +23:59")
        seconds -= int(f"{sign}1") * (hours * 3600 + minutes * 60)
    try:
        days = dt.date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError as error:
        raise ValueError(f"a date of the calendar ({error})") from None
    nanoseconds = (days * 86_400 + seconds) * NANOSECONDS + int((fraction or "0").ljust(9, "0"))
    if not MIN_TIMESTAMP <= nanoseconds <= MAX_TIMESTAMP:
        raise ValueError(f"an instant {_RANGE}")
    return nanoseconds


def _second_of_day(hour: int, minute: int, second: int, fraction: int) -> int:
    if second == 60:
        fix = "give the second before or after it"
        raise ValueError(f"a second from 00 to 59: Unix time has no number for a leap second, {fix}")
    if minute > 59 or second > 59 or (hour, minute, second, fraction) > (24, 0, 0, 0):
        raise ValueError("a time of day from 00:00:00 to 24:00:00")
    return hour * 3600 + minute * 60 + second


def parse_moment(text: str) -> int:
    """Read the start or end of a time range as nanoseconds since the epoch.

    A plain date means midnight UTC at its start; other text must be ISO-8601 with a zone.

    Raises:
        ValueError: The text is neither, or lies outside 1900 to 2262; the message names the right form.
    """
    try:
        return parse_timestamp(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except Fault as fault:
        expected = f"a date such as 2026-01-31 (its midnight in UTC), or {fault.expected}"
        raise ValueError(f"{text!r}: expected {expected}") from None
