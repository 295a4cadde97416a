from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstream_schemas.timestamp import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    format_timestamp,
    from_datetime,
    parse_timestamp,
)
from tests.support.events import timestamps

DAY = 86_400 * 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2017-12-21T13:50:54.474Z", 1_513_864_254_474_000_000),
        ("2017-12-21T13:50:54.123456789Z", 1_513_864_254_123_456_789),
        ("2017-12-21T13:50:54.000000001Z", 1_513_864_254_000_000_001),
        ("2017-12-21T15:20:54+01:30", 1_513_864_254_000_000_000),
        ("2017-12-21T15:20:54+0130", 1_513_864_254_000_000_000),
        ("2017-12-21T08:50:54-05", 1_513_864_254_000_000_000),
        ("2017-12-21T13:50:54-00:00", 1_513_864_254_000_000_000),
        ("2017-12-21 13:50:54,5z", 1_513_864_254_500_000_000),
        ("2017-12-21t13:50Z", 1_513_864_200_000_000_000),
        ("2016-02-29T00:00:00Z", 1_456_704_000_000_000_000),
        ("1970-01-01T24:00:00Z", DAY),
        ("1970-01-01T24:00:00.000000000Z", DAY),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("1900-01-01T00:00:00Z", MIN_TIMESTAMP),
        ("1899-12-31T23:00:00-01:00", MIN_TIMESTAMP),
        ("2262-04-11T23:47:16.854775807Z", MAX_TIMESTAMP),
        ("2262-04-12T00:47:16.854775807+01:00", MAX_TIMESTAMP),
    ],
)
def test_reads_iso_8601(text: str, nanoseconds: int) -> None:
    assert parse_timestamp(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2017-12-21T13:50:54", "a zone at the end"),
        ("2017-12-21T13:50:54.474", "a zone at the end"),
        ("2017-12-21T13:50:54.1234567890Z", "nine fractional digits at most"),
        ("2016-12-31T23:59:60Z", "leap second"),
        ("2017-12-21T24:00:01Z", "a time of day"),
        ("2017-12-21T24:00:00.000000001Z", "a time of day"),
        ("2017-12-21T25:00:00Z", "a time of day"),
        ("2017-12-21T13:60:00Z", "a time of day"),
        ("2017-12-21T13:50:61Z", "a time of day"),
        ("2017-13-21T13:50:54Z", "a date of the calendar"),
        ("2017-02-29T13:50:54Z", "a date of the calendar"),
        ("0000-01-01T00:00:00Z", "a date of the calendar"),
        ("2017-12-21T13:50:54+24:00", "an offset from"),
        ("2017-12-21T13:50:54+01:60", "an offset from"),
        ("1899-12-31T23:59:59.999999999Z", "from 1900-01-01T00:00:00Z"),
        ("1900-01-01T00:00:00+00:01", "from 1900-01-01T00:00:00Z"),
        ("2262-04-11T23:47:16.854775808Z", "from 1900-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59Z", "from 1900-01-01T00:00:00Z"),
        ("", "ISO-8601 with a zone"),
        ("2017-12-21", "ISO-8601 with a zone"),
        ("20171221T135054Z", "ISO-8601 with a zone"),
        ("1513864254", "ISO-8601 with a zone"),
        ("2017-12-21T13:50:54.Z", "ISO-8601 with a zone"),
        ("2017-12-21T13:50:54Z\n", "ISO-8601 with a zone"),
        (" 2017-12-21T13:50:54Z", "ISO-8601 with a zone"),
        ("2017-12-21T13:50:54 Europe/Oslo", "ISO-8601 with a zone"),
        ("٢٠١٧-12-21T13:50:54Z", "ISO-8601 with a zone"),
        ("2017-12-21T13:50:54+01:30:15", "ISO-8601 with a zone"),
    ],
)
def test_refuses_other_text_and_names_the_right_form(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_timestamp(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (100_000_000, "1970-01-01T00:00:00.1Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_513_864_254_474_000_000, "2017-12-21T13:50:54.474Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_writes_no_more_digits_than_needed(nanoseconds: int, text: str) -> None:
    assert format_timestamp(nanoseconds) == text


@given(timestamps())
def test_a_formatted_timestamp_is_read_back(nanoseconds: int) -> None:
    assert parse_timestamp(format_timestamp(nanoseconds)) == nanoseconds


@given(
    st.datetimes(datetime(1901, 1, 1), datetime(2262, 1, 1)),  # noqa: DTZ001 (zones are drawn beside)
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_agrees_with_datetime(naive: datetime, minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_timestamp(moment.isoformat()) == from_datetime(moment)
    assert format_timestamp(from_datetime(moment))[:19] == moment.astimezone(UTC).isoformat()[:19]


def test_a_datetime_keeps_its_microseconds_and_odd_offset() -> None:
    oslo_1900 = timezone(timedelta(minutes=43, microseconds=1))
    assert from_datetime(datetime(1970, 1, 1, 0, 43, tzinfo=oslo_1900)) == -1000


def test_refuses_a_datetime_without_zone() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        from_datetime(datetime(2025, 1, 1))  # noqa: DTZ001 (the tested case)


@pytest.mark.parametrize("year", [1899, 2263])
def test_refuses_a_datetime_out_of_range(year: int) -> None:
    with pytest.raises(ValueError, match="from 1900-01-01"):
        from_datetime(datetime(year, 1, 1, tzinfo=UTC))
