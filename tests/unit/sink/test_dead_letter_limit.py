import re

import pytest

from auditstream_schemas.errors import SettingsError, SinkError
from auditstream_sink import SinkSettings
from auditstream_sink.batch import Record, Refused
from auditstream_sink.clock import SystemClock
from auditstream_sink.dead_letter_limit import DeadLetterLimit
from auditstream_sink.metrics import Metrics


def record(offset: int) -> Record:
    return Record(partition=0, offset=offset, key=b"", value=b"secret", headers=())


def refused(number: int, reason: str = "undecodable", error: str = "was 'secret'", *, first: int = 0) -> list[Refused]:
    return [
        Refused(record=record(first + index), verdict="invalid", reason=reason, error=error) for index in range(number)
    ]


def limit(share: float = 0.5, window: int = 100) -> DeadLetterLimit:
    return DeadLetterLimit(SinkSettings(dead_letter_limit=share, dead_letter_window=window), Metrics(SystemClock()))


def passes(flood: DeadLetterLimit, handled: int, letters: list[Refused]) -> None:
    flood.check(handled, letters)
    flood.passed(handled, letters)


def test_a_few_bad_records_on_a_quiet_topic_are_no_flood() -> None:
    flood = limit()
    for _ in range(50):
        passes(flood, 1, refused(1))
    with pytest.raises(SinkError, match="51 of the last 51 records"):
        flood.check(1, refused(1))


@pytest.mark.parametrize(("number", "stops"), [(500, False), (501, True)])
def test_a_batch_larger_than_the_window_is_judged_by_itself(number: int, stops: bool) -> None:
    flood = limit()
    passes(flood, 100, [])
    if stops:
        with pytest.raises(SinkError, match="501 of the last 1,000 records"):
            flood.check(1_000, refused(number))
    else:
        flood.check(1_000, refused(number))


def test_sound_records_after_a_flood_are_let_through() -> None:
    flood = limit()
    passes(flood, 50, refused(50))
    with pytest.raises(SinkError):
        flood.check(10, refused(1))
    passes(flood, 10, [])


def test_the_message_names_the_commonest_reason_and_the_way_out_and_nothing_of_an_event() -> None:
    letters = [
        *refused(5, "payload"),
        *refused(90, "incompatible_schema", "schema id 7: lacks id", first=40),
    ]
    with pytest.raises(SinkError) as caught:
        limit().check(100, letters)
    said = str(caught.value)
    assert re.search(r"95 of the last 100 records .* incompatible_schema, 90 times, .* partition 0 offset 40", said)
    assert "schema id 7: lacks id" in said
    assert "AUDITSTREAM_DEAD_LETTER_LIMIT" in said
    with pytest.raises(SinkError) as caught:
        limit().check(100, refused(100))
    assert "secret" not in str(caught.value)


def test_one_sets_no_limit_and_nought_stops_at_the_first() -> None:
    limit(share=1).check(1_000, refused(1_000))
    limit(share=0).check(1_000, [])
    with pytest.raises(SinkError):
        limit(share=0).check(1, refused(1))


@pytest.mark.parametrize(("share", "window"), [(1.1, 1), (-0.1, 1), (float("nan"), 1), (0.5, 0)])
def test_a_limit_that_makes_no_sense_is_refused(share: float, window: int) -> None:
    with pytest.raises(SettingsError, match="AUDITSTREAM_DEAD_LETTER_"):
        limit(share, window)


def test_the_share_is_that_of_the_last_records_alone() -> None:
    flood = limit()
    passes(flood, 1_000, [])
    # A batch is in the window as long as the last hundred records reach into it, and then whole.
    passes(flood, 99, refused(99))
    passes(flood, 1, [])
    with pytest.raises(SinkError, match="100 of the last 101 records"):
        flood.check(1, refused(1))
    passes(flood, 100, refused(50))
    with pytest.raises(SinkError, match="51 of the last 101 records"):
        flood.check(1, refused(1))
