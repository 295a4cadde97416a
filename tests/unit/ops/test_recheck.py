import pytest
from hypothesis import given

from auditstream_ops.ledger.recheck import id_and_time
from auditstream_schemas.codec import encode
from auditstream_schemas.errors import WireFormatError
from auditstream_schemas.event import AuditEvent
from tests.support.events import events, make_event

WHOLE = encode(make_event(1), 7)


@given(event=events())
def test_every_record_begins_with_its_id_and_time(event: AuditEvent) -> None:
    assert id_and_time(encode(event, 7)) == (event.id, event.occurred_at)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0\0\0\0\7",
        b"\1" + WHOLE[1:],
        WHOLE[:40],
        WHOLE[:42],
        WHOLE[:5] + b"\x46" + WHOLE[6:],
        WHOLE[:6] + b"x" * 36 + WHOLE[42:],
        WHOLE[:6] + b"\xff" * 36 + WHOLE[42:],
        WHOLE[:42] + b"\xff" * 20,
    ],
)
def test_what_does_not_begin_so_is_told(message: bytes) -> None:
    with pytest.raises(WireFormatError):
        id_and_time(message)
