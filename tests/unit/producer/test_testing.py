import pytest

from auditstream_producer import AuditProducer, EventEmitter
from auditstream_producer.testing import CapturingProducer
from auditstream_schemas.errors import InvalidEventError, QueueFullError
from auditstream_schemas.event import Entity


def log_in(producer: EventEmitter, user: str) -> None:
    """Stand for a service's code."""
    producer.emit(
        action="unlisted.user.seen",
        actor={"id": user, "type": "user"},
        target={"id": user, "type": "user"},
        payload={"big": 2**70},
        success=False,
    )


def test_events_are_collected_as_a_reader_decodes_them() -> None:
    with CapturingProducer() as producer:
        log_in(producer, "7")
    (event,) = producer.events
    assert event.action == "unlisted.user.seen"
    assert event.actor == Entity(id="7", type="user")
    assert event.payload == '{"big":1180591620717411303424}'
    assert not event.success
    assert event.id.version == 7


def test_refuses_an_invalid_event() -> None:
    producer = CapturingProducer()
    with pytest.raises(InvalidEventError, match=r"actor\.id"):
        log_in(producer, "")
    assert producer.events == []


def test_a_full_queue_and_a_closed_producer_can_be_simulated() -> None:
    producer = CapturingProducer(queue_events=1)
    log_in(producer, "7")
    with pytest.raises(QueueFullError):
        log_in(producer, "8")
    assert producer.stats().accepted == producer.stats().delivered == 1
    producer.close()
    with pytest.raises(RuntimeError, match="closed"):
        log_in(producer, "9")


def test_it_has_the_methods_of_the_real_one() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert public(AuditProducer) - public(CapturingProducer) == {"from_env"}
