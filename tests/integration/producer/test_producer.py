import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from auditstream_local.server import Server
from auditstream_ops.deploy.topics import TopicPlan, create_topics
from auditstream_producer import AuditProducer, DeliveryFailure, ProducerSettings
from auditstream_schemas.catalog import catalog
from auditstream_schemas.codec import SCHEMA_JSON, decode, encode
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.registry import RegistryClient
from tests.integration.producer.topic import PARTITIONS, WAIT, read_events, read_topic, run_python
from tests.support.events import make_event
from tests.support.fix_stack import Tenant, local_stack
from tests.support.late_port import LatePort

EXAMPLE = catalog()["context.create"].example


def plain_event(number: int) -> AuditEvent:
    """An event of an unlisted action, so that its payload may be anything."""
    return make_event(number, action="unlisted.thing.done")


@pytest.fixture
def settings(tenant: Tenant) -> ProducerSettings:
    return ProducerSettings(
        kafka_bootstrap_servers=tenant.endpoints.bootstrap_servers,
        schema_registry_url=tenant.endpoints.registry_url,
        topic=tenant.topic,
    )


def java_partition(key: bytes, partitions: int) -> int:
    """The Java client's partition of a key: its murmur2, as in org.apache.kafka.common.utils.Utils."""
    mask, mixer = 0xFFFFFFFF, 0x5BD1E995
    hashed = (0x9747B28C ^ len(key)) & mask
    whole = len(key) // 4 * 4
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * mixer & mask
        word = (word ^ (word >> 24)) * mixer & mask
        hashed = (hashed * mixer & mask) ^ word
    if len(key) > whole:
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * mixer & mask
    hashed = (hashed ^ (hashed >> 13)) * mixer & mask
    return ((hashed ^ (hashed >> 15)) & 0x7FFFFFFF) % partitions


def test_events_arrive_as_they_were_emitted(tenant: Tenant, settings: ProducerSettings) -> None:
    events = [plain_event(number) for number in range(200)]
    with AuditProducer(settings) as producer:
        for event in events:
            assert producer.emit_event(event) == event.id
        made = producer.emit(**{key: value for key, value in EXAMPLE.items() if key != "id"})
        assert producer.flush(WAIT) == 0
        stats = producer.stats()
        assert (stats.accepted, stats.delivered, stats.failed, stats.in_queue) == (201, 201, 0, 0)
    schema_id = RegistryClient(tenant.endpoints.registry_url).schema_id(f"{tenant.topic}-value", SCHEMA_JSON)
    messages = {(message.key() or b"").decode(): message for message in read_topic(tenant, 201)}
    assert messages.keys() == {str(event.id) for event in events} | {str(made)}
    for event in events:
        assert messages[str(event.id)].value() == encode(event, schema_id)
    assert decode(messages[str(made)].value() or b"") == AuditEvent.build(**{**EXAMPLE, "id": made})


def test_the_partition_of_a_key_is_that_of_the_java_client(tenant: Tenant, settings: ProducerSettings) -> None:
    with AuditProducer(settings) as producer:
        for number in range(100):
            producer.emit_event(plain_event(number))
    messages = read_topic(tenant, 100)
    assert len({message.partition() for message in messages}) == PARTITIONS
    for message in messages:
        assert message.partition() == java_partition(message.key() or b"", PARTITIONS)


def test_a_resent_event_lands_on_the_same_partition(tenant: Tenant, settings: ProducerSettings) -> None:
    for _ in range(2):
        with AuditProducer(settings) as producer:
            for number in range(30):
                producer.emit_event(plain_event(number))
    partitions: dict[Any, set[Any]] = {}
    messages = read_topic(tenant, 60)
    for message in messages:
        partitions.setdefault(message.key(), set()).add(message.partition())
    assert len(messages) == 60
    assert len(partitions) == 30
    assert all(len(numbers) == 1 for numbers in partitions.values())


@pytest.mark.parametrize("late", [("broker",), ("registry",), ("broker", "registry")], ids="-".join)
def test_nothing_is_lost_when_broker_or_registry_start_late(
    tenant: Tenant, settings: ProducerSettings, late: tuple[str, ...]
) -> None:
    events = [plain_event(number) for number in range(300)]
    with (
        LatePort(settings.kafka_bootstrap_servers) as broker,
        LatePort(settings.schema_registry_url.removeprefix("http://")) as registry,
    ):
        if "broker" in late:
            settings = replace(settings, kafka_bootstrap_servers=broker.address)
        if "registry" in late:
            settings = replace(settings, schema_registry_url=f"http://{registry.address}")
        producer = AuditProducer(settings)
        for event in events[:200]:
            producer.emit_event(event)
        assert producer.flush(0.5) == 200
        broker.open()
        registry.open()
        for event in events[200:]:
            producer.emit_event(event)
        assert producer.flush(WAIT) == 0
        assert producer.stats().delivered == 300
        assert producer.close() == 0
    assert read_events(tenant, 300) == events


def test_events_wait_for_a_schema_that_is_registered_late(tenant: Tenant, settings: ProducerSettings) -> None:
    settings = replace(settings, topic=tenant.dlq_topic)  # a topic whose schema is not registered
    producer = AuditProducer(settings)
    producer.emit_event(plain_event(1))
    assert producer.flush(0.5) == 1
    RegistryClient(tenant.endpoints.registry_url).register(settings.subject, SCHEMA_JSON)
    assert producer.flush(WAIT) == 0
    assert producer.stats().delivered == 1
    assert producer.close() == 0


@contextmanager
def own_broker(directory: Path, topic: str) -> Iterator[tuple[Server, str]]:
    """A broker that the test can stop."""
    stack = local_stack(directory)
    server, address = stack.server("kafka"), stack.endpoints.bootstrap_servers
    server.start()
    try:
        server.wait_until_answering(time.monotonic() + WAIT)
        settings = ProducerSettings(kafka_bootstrap_servers=address, topic=topic)
        create_topics(settings, TopicPlan(partitions=1), dead_letter_topic=f"{topic}.dlq")
        yield server, address
    finally:
        server.stop()


def test_events_for_a_stopped_broker_are_reported_as_failed(
    tenant: Tenant, settings: ProducerSettings, tmp_path: Path
) -> None:
    failures: list[DeliveryFailure] = []
    with own_broker(tmp_path, tenant.topic) as (server, address):
        settings = replace(settings, kafka_bootstrap_servers=address, producer_delivery_timeout=2)
        producer = AuditProducer(settings, on_error=failures.append)
        for number in range(10):
            producer.emit_event(plain_event(number), tag=number)
        assert producer.flush(WAIT) == 0
        assert producer.stats().delivered == 10
        server.stop()
        for number in range(10, 30):
            producer.emit_event(plain_event(number), tag=number)
        assert producer.flush(WAIT) == 0
    assert producer.stats().failed == 20
    assert [failure.event for failure in sorted(failures, key=lambda failure: str(failure.tag))] == [
        plain_event(number) for number in range(10, 30)
    ]
    assert {failure.tag for failure in failures} == set(range(10, 30))
    assert {failure.reason for failure in failures} == {
        f"not acknowledged within 2 seconds: is the broker at {address} up?"
    }
    assert producer.close() == 0


def test_close_reports_the_events_for_a_stopped_broker(
    tenant: Tenant, settings: ProducerSettings, tmp_path: Path
) -> None:
    failures: list[DeliveryFailure] = []
    with own_broker(tmp_path, tenant.topic) as (server, address):
        producer = AuditProducer(replace(settings, kafka_bootstrap_servers=address), on_error=failures.append)
        producer.emit_event(plain_event(0))
        assert producer.flush(WAIT) == 0
        server.stop()
        for number in range(1, 20):
            producer.emit_event(plain_event(number))
        assert producer.close(0.2) == 19
    assert (producer.stats().delivered, producer.stats().failed, producer.stats().in_queue) == (1, 19, 0)
    assert len({failure.event_id for failure in failures}) == 19


def test_the_failure_names_a_missing_topic(settings: ProducerSettings, tenant: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("topic.metadata.propagation.max.ms=1000\n")  # 30 seconds by default
    settings = replace(settings, topic=f"{tenant.topic}.missing", kafka_config_file=file)
    RegistryClient(settings.schema_registry_url).register(settings.subject, SCHEMA_JSON)
    failures: list[DeliveryFailure] = []
    producer = AuditProducer(settings, on_error=failures.append)
    producer.emit_event(plain_event(1))
    assert producer.flush(WAIT) == 0
    producer.close()
    (failure,) = failures
    assert f"no topic {settings.topic}" in failure.reason


def librdkafka() -> ctypes.CDLL:
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    libraries = sorted(folder.glob("librdkafka-*.so*"))
    if not libraries:
        pytest.skip("confluent-kafka was built without a bundled librdkafka")
    return ctypes.CDLL(str(libraries[0]))


def test_a_fatal_error_of_librdkafka_loses_nothing(tenant: Tenant, settings: ProducerSettings) -> None:
    library = librdkafka()
    events = [plain_event(number) for number in range(300)]
    producer = AuditProducer(settings)
    for event in events[:100]:
        producer.emit_event(event)
    assert producer.flush(WAIT) == 0
    for event in events[100:200]:
        producer.emit_event(event)
    assert producer._delivery is not None
    # A reference, because the producer drops its own at the error, maybe before the call below has returned.
    kafka = producer._delivery.kafka
    # The first member of the extension's object, behind CPython's object header, is the rd_kafka_t.
    handle = ctypes.c_void_p.from_address(id(kafka) + object.__basicsize__)
    out_of_order = 45
    library.rd_kafka_test_fatal_error(handle, out_of_order, b"made by a test")
    for event in events[200:]:
        producer.emit_event(event)
    assert producer.flush(WAIT) == 0
    assert (producer.stats().delivered, producer.stats().failed) == (300, 0)
    assert producer.close() == 0
    # Events in flight may be on the topic twice, with the same id.
    assert {event.id: event for event in read_events(tenant, 300)} == {event.id: event for event in events}


def test_parent_and_child_of_a_fork_each_deliver_their_own_events(tenant: Tenant) -> None:
    script = """
import os, sys
from auditstream_producer import AuditProducer
producer = AuditProducer.from_env()
def emit(name):
    producer.emit(action="fork.tested", actor={"id": name, "type": "process"}, target={"id": "1", "type": "test"})
emit("parent before")
child = os.fork()
emit("child" if child == 0 else "parent after")
assert producer.close(30) == 0
assert producer.stats().delivered == (1 if child == 0 else 2), producer.stats()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    run_python(tenant, "-c", script)
    assert sorted(event.actor.id for event in read_events(tenant, 3)) == ["child", "parent after", "parent before"]


def test_a_producer_that_was_not_closed_is_closed_at_exit(tenant: Tenant) -> None:
    script = """
from auditstream_producer import AuditProducer
AuditProducer.from_env().emit(
    action="exit.tested", actor={"id": "1", "type": "process"}, target={"id": "1", "type": "test"}
)
"""
    run_python(tenant, "-c", script)
    assert [event.action for event in read_events(tenant, 1)] == ["exit.tested"]
