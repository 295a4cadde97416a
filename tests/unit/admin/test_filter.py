from datetime import UTC
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstream_admin.events.event_filter import MAX_VALUES, EventFilter
from auditstream_admin.events.time_range import PRESETS, TimeRange, TimeSpan, date_time
from auditstream_schemas.errors import FilterError
from auditstream_schemas.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, parse_timestamp
from tests.support.events import texts

NOW = parse_timestamp("2026-03-10T12:00:00Z")

ids = st.none() | texts(min_size=1).filter(lambda text: bool(text.strip()))
ranges = st.sampled_from([*PRESETS]).map(lambda preset: TimeRange(preset=preset)) | st.tuples(
    st.integers(MIN_TIMESTAMP, MAX_TIMESTAMP - 1), st.none() | st.integers(1, 10**18)
).map(lambda pair: TimeRange(start=pair[0], end=None if pair[1] is None else min(pair[0] + pair[1], MAX_TIMESTAMP)))
filters = st.builds(
    EventFilter,
    time=ranges,
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Sao_Paulo"]),
    actions=st.lists(st.from_regex(r"[a-z*?.]{1,20}", fullmatch=True), max_size=5, unique=True).map(tuple),
    actor=ids,
    target=ids,
    scope=ids,
    request=ids,
    success=st.none() | st.booleans(),
    metadata=st.lists(
        st.tuples(texts(max_size=8).filter(lambda key: "=" not in key), texts(max_size=8)), max_size=3, unique=True
    ).map(tuple),
    text=ids.map(lambda text: None if text is None else text.strip()),
)


def read(query: str) -> EventFilter:
    return EventFilter.read(parse_qsl(query, keep_blank_values=True))


@given(filters)
def test_a_filter_survives_its_url(event_filter: EventFilter) -> None:
    assert read(event_filter.query()) == event_filter
    assert read(event_filter.query()).query() == event_filter.query()


def test_empty_form_fields_and_other_parameters_are_ignored() -> None:
    assert read("range=&from=&to=&action=&actor=&success=&meta=&q=+&tz=&cursor=x&page=3") == EventFilter()
    assert EventFilter().query() == ""


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("range=2d", "range"),
        ("from=yesterday", "from"),
        ("from=2026-01-02&to=2026-01-01", "to"),
        ("to=2026-01-01", "from"),
        ("success=maybe", "success"),
        ("meta=novalue", "meta"),
        ("tz=Mars/Olympus", "tz"),
        ("tz=..%2F..%2Fetc%2Fpasswd", "tz"),
        ("tz=%2Fetc%2Fpasswd", "tz"),
        ("actor=a&actor=b", "actor"),
        ("actor=a%00b", "actor"),
        (f"q={'x' * 513}", "q"),
        ("&".join(f"action=a.{number}" for number in range(MAX_VALUES + 1)), "action"),
    ],
)
def test_an_error_names_the_malformed_parameter(query: str, parameter: str) -> None:
    with pytest.raises(FilterError) as caught:
        read(query)
    assert caught.value.parameter == parameter


def test_a_preset_ends_now_and_a_custom_range_at_its_end() -> None:
    assert read("range=1h").time.span(NOW) == TimeSpan(start=NOW - 3_600_000_000_000, end=NOW)
    custom = read("from=2026-03-01&to=2026-03-02T06:00:00.5%2B01:00&range=1h").time.span(NOW)
    assert custom == TimeSpan(start=parse_timestamp("2026-03-01T00:00Z"), end=parse_timestamp("2026-03-02T05:00:00.5Z"))
    assert read("from=2026-03-01").time.span(NOW).end == NOW
    assert read("from=2027-01-01").time.span(NOW).end == parse_timestamp("2027-01-01T00:00Z")


def test_a_time_without_a_zone_is_in_the_zone_of_the_page() -> None:
    span = read("from=2026-03-01T09:00&to=2026-03-02&tz=Asia/Tokyo").time.span(NOW)
    assert span == TimeSpan(start=parse_timestamp("2026-03-01T00:00Z"), end=parse_timestamp("2026-03-01T15:00Z"))
    assert "from=2026-03-01T00%3A00%3A00Z" in read("from=2026-03-01T09:00&tz=Asia/Tokyo").query()


def test_times_are_shown_in_a_zone() -> None:
    moment = parse_timestamp("2026-07-01T22:30:00.123999999Z")
    assert date_time(moment, UTC) == "2026-07-01 22:30:00.123"
    assert date_time(moment, ZoneInfo("Europe/Berlin")) == "2026-07-02 00:30:00.123"
    for edge in (MIN_TIMESTAMP, MAX_TIMESTAMP, 0, -1):
        assert date_time(edge, ZoneInfo("Pacific/Kiritimati"))


def test_the_audit_event_of_a_filter_contains_its_conditions() -> None:
    conditions = read("range=7d&action=a.b&action=c.*&actor=x&success=false&meta=k%3Dv&q=word&tz=Asia/Tokyo").to_dict()
    assert conditions == {
        "range": "7d",
        "action": ["a.b", "c.*"],
        "actor": "x",
        "success": "false",
        "meta": ["k=v"],
        "q": "word",
    }
