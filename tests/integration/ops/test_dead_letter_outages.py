"""Dead letters are replayed while the broker is killed: it comes back during the replay, or only for the next one."""

import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from confluent_kafka import Consumer, TopicPartition

from auditstream_ops.dead_letters import resolver as resolver_module
from auditstream_ops.dead_letters.dead_letter import DeadLetterReader
from auditstream_ops.dead_letters.resolver import Resolver, ResolverOutcome
from auditstream_ops.deploy.topics import TopicPlan, create_topics
from auditstream_sink import SinkSettings
from auditstream_sink.batch import Record, RefusedRecord
from auditstream_sink.dead_letters import DeadLetters
from tests.support.kafka_cluster import KafkaCluster, missing_tools
from tests.support.tcp_proxy import Conversation, TcpProxy

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=f"this machine lacks {', '.join(missing_tools())}")

VALUES = [f"rubbish {number:04}".encode() for number in range(800)]
FATAL = VALUES[650]
"""In the middle of the second chunk."""


@pytest.fixture(scope="module")
def proxy() -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1:1") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def cluster(proxy: TcpProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with KafkaCluster(tmp_path_factory.mktemp("kafka"), relays=[proxy.port]) as cluster:
        proxy.forward_to(f"127.0.0.1:{cluster.relayed[0]}")
        yield cluster


@pytest.fixture
def settings(cluster: KafkaCluster, proxy: TcpProxy) -> SinkSettings:
    """An empty topic behind the proxy, and dead letters that are all open."""
    topic = f"t{uuid.uuid4().hex[:12]}"
    direct = SinkSettings(kafka_bootstrap_servers=cluster.bootstrap_servers, topic=topic)
    create_topics(direct, TopicPlan(partitions=3), dead_letter_topic=direct.dead_letters)
    refused = [
        RefusedRecord(
            record=Record(partition=0, offset=offset, key=value, value=value, headers=()),
            status="invalid",
            reason="wire_format",
            error="not an event",
        )
        for offset, value in enumerate(VALUES)
    ]
    DeadLetters(direct).send(refused, topic_id=uuid.uuid4())
    return SinkSettings(kafka_bootstrap_servers=proxy.address, topic=topic)


@pytest.fixture
def killed(cluster: KafkaCluster, proxy: TcpProxy) -> Iterator[Event]:
    """Set once the broker was killed: when the fatal record is sent, before it reaches the broker."""
    is_killed = Event()

    def kill(_conversation: Conversation) -> None:
        cluster.brokers[0].kill()
        is_killed.set()

    watch = proxy.watch(FATAL, kill)
    yield is_killed
    proxy.unwatch(watch)


def replay(settings: SinkSettings) -> ResolverOutcome:
    """Replay the open dead letters."""
    with DeadLetterReader(settings) as reader:
        open_ones = (dead_letter for dead_letter in reader.dead_letters() if dead_letter.resolution is None)
        return Resolver(settings, by="me", why="test").replay(open_ones, progress=lambda _done: None)


def states(settings: SinkSettings) -> Counter[str]:
    with DeadLetterReader(settings) as reader:
        return Counter(dead_letter.state for dead_letter in reader.dead_letters())


def replayed_values(settings: SinkSettings) -> list[bytes]:
    """The values on the event topic, sorted."""
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": "look", "enable.partition.eof": True}
    )
    unread = {0, 1, 2}
    consumer.assign([TopicPartition(settings.topic, partition, 0) for partition in unread])
    values: list[bytes] = []
    while unread:
        for message in consumer.consume(1000, 1):
            if message.error() is None:
                values.append(bytes(message.value() or b""))
            else:
                unread.discard(message.partition() or 0)
    consumer.close()
    return sorted(values)


def test_after_a_restart_during_the_replay_the_broker_has_every_record_once(
    settings: SinkSettings, killed: Event, cluster: KafkaCluster, proxy: TcpProxy
) -> None:
    with ThreadPoolExecutor(1) as beside:
        outcome = beside.submit(replay, settings)
        assert killed.wait(60)
        proxy.heal()
        # In this thread, because a broker dies with the thread that started it.
        cluster.start(cluster.brokers)
        assert outcome.result(60) == ResolverOutcome(sent=800, resolved=800)
    assert states(settings) == {"replayed": 800}
    assert replayed_values(settings) == VALUES


def test_records_that_were_not_delivered_stay_open_for_the_next_replay(
    settings: SinkSettings,
    killed: Event,
    cluster: KafkaCluster,
    proxy: TcpProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolver_module, "_DELIVERY_SECONDS", 2)
    outcome = replay(settings)
    assert killed.is_set()
    # Some records of the second chunk may have reached the broker before it was killed, their resolutions did not.
    assert outcome.resolved == 500 <= outcome.sent < 800
    assert sum(outcome.failures.values()) == 300
    proxy.heal()
    cluster.start(cluster.brokers)
    assert states(settings) == {"replayed": 500, "open": 300}
    values = replayed_values(settings)
    assert len(values) == outcome.sent
    assert set(VALUES[:500]) <= set(values)

    assert replay(settings) == ResolverOutcome(sent=300, resolved=300)
    assert states(settings) == {"replayed": 800}
    # A record that was sent without a resolution is sent again; the sink takes it for a second delivery.
    values = replayed_values(settings)
    assert len(values) == outcome.sent + 300
    assert set(values) == set(VALUES)
