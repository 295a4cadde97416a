from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from auditstream_ops.commands.dlq import dlq
from auditstream_ops.dead_letters.content import RecordDecoder
from auditstream_ops.dead_letters.dead_letter import DeadLetter
from auditstream_ops.dead_letters.filter import DeadLetterFilter, parse_name
from auditstream_schemas.registry import RegistryClient

AT = datetime(2026, 1, 31, 9, tzinfo=UTC)
DEAD_LETTER = DeadLetter(
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
    resolution=None,
)
NANOSECONDS = int(AT.timestamp()) * 10**9
# Never queried: bytes that are not a record need no schema.
DECODER = RecordDecoder(RegistryClient("http://127.0.0.1:9"))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(names=("other[0]@1", "audit.events[3]@17")), True),
        (DeadLetterFilter(names=("audit.events[3]@18",)), False),
        (DeadLetterFilter(reasons=("id", "payload")), True),
        (DeadLetterFilter(reasons=("id",)), False),
        (DeadLetterFilter(start=NANOSECONDS, end=NANOSECONDS + 1), True),
        (DeadLetterFilter(start=NANOSECONDS + 1), False),
        (DeadLetterFilter(end=NANOSECONDS), False),
        (DeadLetterFilter(topic_id="0197", partition=3, offset=17), True),
        (DeadLetterFilter(topic_id="0198"), False),
        (DeadLetterFilter(partition=0), False),
        (DeadLetterFilter(offset=0), False),
        (DeadLetterFilter(reasons=("payload",), partition=4), False),
        (DeadLetterFilter(actions=("*",)), False),
    ],
)
def test_all_conditions_must_hold(conditions: DeadLetterFilter, expected: bool) -> None:
    assert conditions.matches(DEAD_LETTER, DECODER) is expected


def test_offset_and_partition_zero_are_conditions() -> None:
    first = replace(DEAD_LETTER, partition=0, offset=0, written_at=AT - timedelta(days=1))
    assert DeadLetterFilter(partition=0, offset=0).matches(first, DECODER)


@pytest.mark.parametrize(
    "text", ["audit.events", "audit.events[3]", "[3]@1", "audit.events[-1]@1", "a[1]@1 ", "a[1]@x"]
)
def test_a_malformed_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="TOPIC"):
        parse_name(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay"], "standard input is not a terminal to ask on: add --yes"),
        (["drop", "--why", "x"], "standard input is not a terminal to ask on: add --yes"),
        (["drop", "--yes"], "Missing option '--why'"),
        (["drop", "--yes", "--why", " "], "--why is empty"),
        (["replay", "--yes", "--new-id"], "--new-id is for --edit"),
        (["list", "--from", "yesterday"], "expected a date"),
        (["list", "audit.events"], "expected TOPIC[PARTITION]@OFFSET"),
    ],
)
def test_a_wrong_call_fails_before_it_connects_to_the_broker(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(dlq, [*arguments, "--kafka-bootstrap-servers", "127.0.0.1:9"])
    assert result.exit_code == 2
    assert message in result.output
