import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from auditstream_producer import AuditProducer, DeliveryFailure, ProducerSettings
from auditstream_schemas.errors import CatalogError, InvalidEventError, QueueFullError, SettingsError, UndeliveredError
from auditstream_schemas.event import AuditEvent

EVENT = AuditEvent.build(
    action="unlisted.thing.done",
    actor={"id": "u-1", "type": "user", "name": "Ada"},
    target={"id": "t-1", "type": "thing"},
    payload={"big": 2**60, "text": "é\r\n\"'"},
    occurred_at="2024-02-29T23:59:59.123456789Z",
    id="01890a5d-ac96-774b-bcce-b302099a8057",
)


@pytest.fixture
def nowhere() -> Iterator[ProducerSettings]:
    """Settings for a port that refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        host, port = reserved.getsockname()
        yield ProducerSettings(
            kafka_bootstrap_servers=f"{host}:{port}",
            schema_registry_url=f"http://{host}:{port}",
            producer_close_timeout=0,
        )


def emit_some(producer: AuditProducer, count: int) -> list[UUID]:
    return [producer.emit(action="unlisted.thing.done", actor=EVENT.actor, target=EVENT.target) for _ in range(count)]


def test_emit_accepts_events_while_broker_and_registry_are_down(nowhere: ProducerSettings) -> None:
    failures: list[DeliveryFailure] = []
    producer = AuditProducer(nowhere, on_error=failures.append)
    ids = emit_some(producer, 20)
    assert len(set(ids)) == 20
    assert {event_id.version for event_id in ids} == {7}
    assert producer.stats().accepted == producer.stats().in_queue == 20
    assert producer.flush(0) == 20
    assert producer.close(0) == 20
    assert producer.stats().failed == 20
    assert producer.stats().in_queue == 0
    assert [failure.event_id for failure in failures] == ids


def test_a_failure_carries_the_event_and_the_tag(nowhere: ProducerSettings) -> None:
    failures: list[DeliveryFailure] = []
    producer = AuditProducer(nowhere, on_error=failures.append)
    assert producer.emit_event(EVENT, tag=("line", 7)) == EVENT.id
    producer.close(0)
    (failure,) = failures
    assert failure.event == EVENT
    assert failure.event_id == EVENT.id
    assert failure.tag == ("line", 7)
    assert "closed before" in failure.reason


def test_an_event_beyond_the_limit_of_the_queue_is_refused(nowhere: ProducerSettings) -> None:
    producer = AuditProducer(replace(nowhere, producer_queue_events=3), on_error=lambda _: None)
    emit_some(producer, 3)
    with pytest.raises(QueueFullError, match=r"3 events .* AUDITSTREAM_PRODUCER_QUEUE_EVENTS"):
        emit_some(producer, 1)
    assert producer.stats().accepted == 3
    assert producer.close(0) == 3


def test_the_queue_has_a_limit_in_bytes(nowhere: ProducerSettings) -> None:
    producer = AuditProducer(replace(nowhere, producer_queue_bytes=10), on_error=lambda _: None)
    producer.emit_event(EVENT)  # larger than the whole queue, but alone
    with pytest.raises(QueueFullError):
        producer.emit_event(EVENT)
    assert producer.close(0) == 1


def test_an_event_that_waits_too_long_is_reported(nowhere: ProducerSettings) -> None:
    failures: list[DeliveryFailure] = []
    producer = AuditProducer(replace(nowhere, producer_delivery_timeout=0.1), on_error=failures.append)
    producer.emit_event(EVENT)
    assert producer.flush(30) == 0
    assert producer.stats().failed == 1
    assert "within 0.1 seconds" in failures[0].reason
    assert nowhere.kafka_bootstrap_servers in failures[0].reason
    assert producer.close() == 0


def test_a_failed_event_frees_its_part_of_the_queue(nowhere: ProducerSettings) -> None:
    settings = replace(nowhere, producer_delivery_timeout=0.1, producer_queue_events=1)
    producer = AuditProducer(settings, on_error=lambda _: None)
    for _ in range(3):
        producer.emit_event(EVENT)
        assert producer.flush(30) == 0
    assert producer.stats().failed == 3
    producer.close()


def test_a_closed_producer_accepts_nothing(nowhere: ProducerSettings) -> None:
    producer = AuditProducer(nowhere)
    assert producer.close() == 0
    assert producer.close() == 0
    with pytest.raises(RuntimeError, match="closed"):
        producer.emit_event(EVENT)
    assert producer.stats().accepted == 0


def test_close_ends_the_thread(nowhere: ProducerSettings) -> None:
    before = set(threading.enumerate())
    producer = AuditProducer(nowhere)
    (thread,) = set(threading.enumerate()) - before
    producer.close()
    thread.join(30)
    assert not thread.is_alive()


def test_leaving_the_block_raises_without_on_error(nowhere: ProducerSettings) -> None:
    with pytest.raises(UndeliveredError, match="1 of 1 events"), AuditProducer(nowhere) as producer:
        producer.emit_event(EVENT)


def test_leaving_the_block_is_silent_with_on_error(nowhere: ProducerSettings) -> None:
    failures: list[DeliveryFailure] = []
    with AuditProducer(nowhere, on_error=failures.append) as producer:
        producer.emit_event(EVENT)
    assert len(failures) == 1


def test_an_error_of_the_block_is_not_hidden(nowhere: ProducerSettings) -> None:
    def fail() -> None:
        with AuditProducer(nowhere) as producer:
            producer.emit_event(EVENT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_an_error_in_on_error_does_not_stop_other_events(
    nowhere: ProducerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[UUID] = []

    def on_error(failure: DeliveryFailure) -> None:
        seen.append(failure.event_id)
        raise ValueError("no disk")

    producer = AuditProducer(nowhere, on_error=on_error)
    ids = emit_some(producer, 3)
    assert producer.close(0) == 3
    assert seen == ids
    assert producer.stats().failed == 3
    assert "no disk" in caplog.text


def test_the_log_names_failures_without_content_of_events(
    nowhere: ProducerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    producer = AuditProducer(nowhere)
    producer.emit_event(EVENT)
    producer.close(0)
    assert f"event {EVENT.id} not delivered" in caplog.text
    for secret in ("Ada", "u-1", "big"):
        assert secret not in caplog.text


def test_emit_names_every_fault_and_accepts_nothing(nowhere: ProducerSettings) -> None:
    producer = AuditProducer(nowhere)
    with pytest.raises(InvalidEventError) as caught:
        producer.emit(action="Login", actor={"id": "", "type": "user"}, target=EVENT.target, version=0)
    assert [error.field for error in caught.value.errors] == ["action", "actor.id", "version"]
    assert producer.stats().accepted == 0
    producer.close()


def test_each_catalog_mode_checks_payloads_as_documented(nowhere: ProducerSettings) -> None:
    listed = {"action": "context.create", "actor": EVENT.actor, "target": EVENT.target}
    wrong = {"nothing": ["like", "it"]}
    for mode, listed_accepted, unlisted_accepted in (
        ("off", True, True),
        ("known", False, True),
        ("strict", False, False),
    ):
        producer = AuditProducer(replace(nowhere, catalog_mode=mode), on_error=lambda _: None)  # type: ignore[arg-type]
        for accepted, event in (
            (listed_accepted, AuditEvent.build(**listed, payload=wrong, id=EVENT.id, occurred_at=1)),  # type: ignore[arg-type]
            (unlisted_accepted, EVENT),
        ):
            if accepted:
                producer.emit_event(event)
            else:
                with pytest.raises(CatalogError):
                    producer.emit_event(event)
        assert producer.stats().accepted == listed_accepted + unlisted_accepted
        producer.close()


def test_a_misspelt_librdkafka_setting_is_refused_at_start(nowhere: ProducerSettings, tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("sasl.mechanizm=PLAIN\n")
    with pytest.raises(SettingsError, match=r"sasl\.mechanizm"):
        AuditProducer(replace(nowhere, kafka_config_file=file))


def test_from_env_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITSTREAM_SCHEMA_REGISTRY_URL", "not a url")
    with pytest.raises(SettingsError, match="AUDITSTREAM_SCHEMA_REGISTRY_URL"):
        AuditProducer.from_env()
