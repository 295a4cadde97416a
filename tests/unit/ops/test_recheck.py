import pytest
from hypothesis import given

from auditstream_ops.ledger.recheck import id_and_time
from auditstream_schemas.codec import encode
from auditstream_schemas.errors import WireFormatError
from auditstream_schemas.event import AuditEvent
from tests.support.events import events, make_event

ENCODED = encode(make_event(1), 7)


@given(event=events())
def test_every_record_begins_with_its_id_and_time(event: AuditEvent) -> None:
    assert id_and_time(encode(event, 7)) == (event.id, event.occurred_at)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0\0\0\0\7",
        b"\1" + ENCODED[1:],
        ENCODED[:40],
        ENCODED[:42],
        ENCODED[:5] + b"\x46" + ENCODED[6:],
        ENCODED[:6] + b"x" * 36 + ENCODED[42:],
        ENCODED[:6] + b"\xff" * 36 + ENCODED[42:],
        ENCODED[:42] + b"\xff" * 20,
    ],
)
def test_a_record_without_id_and_time_is_refused(message: bytes) -> None:
    with pytest.raises(WireFormatError):
        id_and_time(message)
