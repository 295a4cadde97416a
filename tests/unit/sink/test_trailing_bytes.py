import os

import pytest

from auditstream_schemas.codec import SCHEMA_JSON, encode_body
from auditstream_sink.framing import trailing_bytes_check
from tests.support.events import make_event

BODY = encode_body(make_event(1, payload={"text": "x" * 300}))


def test_a_record_has_no_trailing_bytes() -> None:
    assert all(trailing_bytes_check(SCHEMA_JSON)(encode_body(make_event(number))) for number in range(50))


@pytest.mark.parametrize("cut", range(1, len(BODY), 7))
def test_a_record_that_is_cut_short_fails_the_check(cut: int) -> None:
    assert not trailing_bytes_check(SCHEMA_JSON)(BODY[:-cut])


@pytest.mark.parametrize("body", [b"", b"\0", os.urandom(300), BODY[1:], BODY + b"\0", BODY + BODY])
def test_other_bytes_and_bytes_behind_a_record_fail_the_check(body: bytes) -> None:
    assert not trailing_bytes_check(SCHEMA_JSON)(body)
