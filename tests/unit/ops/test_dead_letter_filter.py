from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from auditstream_ops.commands.dlq import dlq
from auditstream_ops.dead_letters.content import RecordDecoder
from auditstream_ops.dead_letters.dead_letter import DeadLetter
from auditstream_ops.dead_letters.filter import LetterFilter, parse_name
from auditstream_schemas.registry import RegistryClient

AT = datetime(2026, 1, 31, 9, tzinfo=UTC)
LETTER = DeadLetter(
    reason="payload",
    error="",
    topic="audit.events",
    topic_id="0197",
    partition=3,
    offset=17,
    written_at=AT,
    key=None,
    content=b"rubbish",
    headers=(),
    dead_letter_partition=0,
    marker=None,
)
NANOSECONDS = int(AT.timestamp()) * 10**9
# Never asked: what is no record needs no schema.
DECODER = RecordDecoder(RegistryClient("http://127.0.0.1:9"))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (LetterFilter(), True),
        (LetterFilter(names=("other[0]@1", "audit.events[3]@17")), True),
        (LetterFilter(names=("audit.events[3]@18",)), False),
        (LetterFilter(reasons=("id", "payload")), True),
        (LetterFilter(reasons=("id",)), False),
        (LetterFilter(start=NANOSECONDS, end=NANOSECONDS + 1), True),
        (LetterFilter(start=NANOSECONDS + 1), False),
        (LetterFilter(end=NANOSECONDS), False),
        (LetterFilter(topic_id="0197", partition=3, offset=17), True),
        (LetterFilter(topic_id="0198"), False),
        (LetterFilter(partition=0), False),
        (LetterFilter(offset=0), False),
        (LetterFilter(reasons=("payload",), partition=4), False),
        (LetterFilter(actions=("*",)), False),
    ],
)
def test_all_conditions_must_hold(choice: LetterFilter, expected: bool) -> None:
    assert choice.matches(LETTER, DECODER) is expected


def test_offset_and_partition_zero_are_conditions() -> None:
    first = replace(LETTER, partition=0, offset=0, written_at=AT - timedelta(days=1))
    assert LetterFilter(partition=0, offset=0).matches(first, DECODER)


@pytest.mark.parametrize(
    "text", ["audit.events", "audit.events[3]", "[3]@1", "audit.events[-1]@1", "a[1]@1 ", "a[1]@x"]
)
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="TOPIC"):
        parse_name(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay"], "standard input is no terminal to ask on: add --yes"),
        (["drop", "--why", "x"], "standard input is no terminal to ask on: add --yes"),
        (["drop", "--yes"], "Missing option '--why'"),
        (["drop", "--yes", "--why", " "], "--why is empty"),
        (["replay", "--yes", "--new-id"], "--new-id is for --edit"),
        (["list", "--from", "yesterday"], "expected a date"),
        (["list", "audit.events"], "expected TOPIC[PARTITION]@OFFSET"),
    ],
)
def test_a_wrong_call_asks_no_broker_and_says_what_is_wrong(arguments: list[str], said: str) -> None:
    found = CliRunner().invoke(dlq, [*arguments, "--kafka-bootstrap-servers", "127.0.0.1:9"])
    assert found.exit_code == 2
    assert said in found.output
