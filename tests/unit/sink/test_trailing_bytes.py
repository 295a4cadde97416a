import os

import pytest

from auditstream_schemas.codec import SCHEMA_JSON, encode_body
from auditstream_sink.trailing_bytes import alignment
from tests.support.events import make_event

BODY = encode_body(make_event(1, payload={"text": "x" * 300}))


def test_a_record_is_aligned() -> None:
    assert all(alignment(SCHEMA_JSON)(encode_body(make_event(number))) for number in range(50))


@pytest.mark.parametrize("cut", range(1, len(BODY), 7))
def test_a_record_that_is_cut_short_is_not(cut: int) -> None:
    assert not alignment(SCHEMA_JSON)(BODY[:-cut])


@pytest.mark.parametrize("body", [b"", b"\0", os.urandom(300), BODY[1:], BODY + b"\0", BODY + BODY])
def test_other_bytes_are_not(body: bytes) -> None:
    assert not alignment(SCHEMA_JSON)(body)
