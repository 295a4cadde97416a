import re

import pytest

from auditstream_schemas.errors import SettingsError, SinkError
from auditstream_sink import SinkSettings
from auditstream_sink.batch import Record, RefusedRecord
from auditstream_sink.clock import Clock
from auditstream_sink.dead_letters import DeadLetterLimit
from auditstream_sink.metrics import Metrics


def record(offset: int) -> Record:
    return Record(partition=0, offset=offset, key=b"", value=b"secret", headers=())


def refused(
    number: int, reason: str = "undecodable", error: str = "was 'secret'", *, first: int = 0
) -> list[RefusedRecord]:
    return [
        RefusedRecord(record=record(first + index), status="invalid", reason=reason, error=error)
        for index in range(number)
    ]


def limit(share: float = 0.5, window: int = 100) -> DeadLetterLimit:
    return DeadLetterLimit(SinkSettings(dead_letter_limit=share, dead_letter_window=window), Metrics(Clock()))


def write(limit: DeadLetterLimit, records: int, refused: list[RefusedRecord]) -> None:
    limit.check(records, refused)
    limit.add(records, refused)


def test_a_few_refused_records_on_a_quiet_topic_do_not_stop_the_sink() -> None:
    quiet = limit()
    for _ in range(50):
        write(quiet, 1, refused(1))
    with pytest.raises(SinkError, match="51 of the last 51 records"):
        quiet.check(1, refused(1))


@pytest.mark.parametrize(("number", "stops"), [(500, False), (501, True)])
def test_a_batch_larger_than_the_window_is_checked_alone(number: int, stops: bool) -> None:
    large = limit()
    write(large, 100, [])
    if stops:
        with pytest.raises(SinkError, match="501 of the last 1,000 records"):
            large.check(1_000, refused(number))
    else:
        large.check(1_000, refused(number))


def test_valid_records_pass_even_above_the_limit() -> None:
    exceeded = limit()
    write(exceeded, 50, refused(50))
    with pytest.raises(SinkError):
        exceeded.check(10, refused(1))
    write(exceeded, 10, [])


def test_the_message_has_the_most_frequent_reason_and_the_fix_and_no_payload() -> None:
    dead_letters = [
        *refused(5, "payload"),
        *refused(90, "incompatible_schema", "schema id 7: lacks id", first=40),
    ]
    with pytest.raises(SinkError) as caught:
        limit().check(100, dead_letters)
    message = str(caught.value)
    assert re.search(r"95 of the last 100 records .* incompatible_schema, 90 times; .* partition 0 offset 40", message)
    assert "schema id 7: lacks id" in message
    assert "AUDITSTREAM_DEAD_LETTER_LIMIT" in message
    with pytest.raises(SinkError) as caught:
        limit().check(100, refused(100))
    assert "secret" not in str(caught.value)


def test_one_sets_no_limit_and_zero_stops_at_the_first_refused_record() -> None:
    limit(share=1).check(1_000, refused(1_000))
    limit(share=0).check(1_000, [])
    with pytest.raises(SinkError):
        limit(share=0).check(1, refused(1))


@pytest.mark.parametrize(("share", "window"), [(1.1, 1), (-0.1, 1), (float("nan"), 1), (0.5, 0)])
def test_a_limit_or_window_out_of_range_is_refused(share: float, window: int) -> None:
    with pytest.raises(SettingsError, match="AUDITSTREAM_DEAD_LETTER_"):
        limit(share, window)


def test_the_share_is_that_of_the_last_records_alone() -> None:
    recent = limit()
    write(recent, 1_000, [])
    # A batch belongs to the window, and then as a whole, while one of its records is among the last hundred.
    write(recent, 99, refused(99))
    write(recent, 1, [])
    with pytest.raises(SinkError, match="100 of the last 101 records"):
        recent.check(1, refused(1))
    write(recent, 100, refused(50))
    with pytest.raises(SinkError, match="51 of the last 101 records"):
        recent.check(1, refused(1))
