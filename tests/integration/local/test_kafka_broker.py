"""Apache Kafka as local processes: what the local stack's broker keeps in memory, this one keeps on disk."""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.kafka_cluster import KafkaCluster, missing_tools

LOGGER = logging.getLogger("auditstream.kafka.test")

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=f"this machine lacks {', '.join(missing_tools())}")


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[KafkaCluster]:
    with KafkaCluster(tmp_path, brokers=getattr(request, "param", 1)) as cluster:
        yield cluster


def settings(cluster: KafkaCluster, **more: object) -> dict[str, Any]:
    return {"bootstrap.servers": cluster.bootstrap_servers, "logger": LOGGER, "log_level": 2, **more}


def create(cluster: KafkaCluster, topic: str, *, replication: int) -> None:
    admin = AdminClient(settings(cluster))
    admin.create_topics([NewTopic(topic, 1, replication)])[topic].result(30)


def produce(cluster: KafkaCluster, topic: str, *values: bytes) -> None:
    producer = Producer(settings(cluster, acks="all", **{"enable.idempotence": True}))
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def consume(cluster: KafkaCluster, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(settings(cluster, **{"group.id": uuid.uuid4().hex, "auto.offset.reset": "error"}))
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages = consumer.consume(count, 30)
    consumer.close()
    assert [message.error() for message in messages] == [None] * len(messages)
    return [message.value() for message in messages]


def test_acknowledged_records_survive_a_kill_of_the_broker(cluster: KafkaCluster) -> None:
    create(cluster, "t", replication=1)
    produce(cluster, "t", b"before")
    (broker,) = cluster.brokers
    broker.kill()
    assert broker.ended() == -9
    cluster.start([broker])

    produce(cluster, "t", b"after")
    assert consume(cluster, "t", 2) == [b"before", b"after"]
    assert set(AdminClient(settings(cluster)).list_topics(timeout=10).topics) >= {"t"}


@pytest.mark.parametrize("cluster", [3], indirect=True)
def test_three_brokers_go_on_when_one_is_killed(cluster: KafkaCluster) -> None:
    create(cluster, "t", replication=3)
    produce(cluster, "t", b"before")
    cluster.brokers[0].kill()
    produce(cluster, "t", b"after")
    assert consume(cluster, "t", 2) == [b"before", b"after"]


def test_a_topic_is_not_created_by_its_first_use(cluster: KafkaCluster) -> None:
    topics = AdminClient(settings(cluster)).list_topics("nobody-made-it", timeout=10).topics
    assert topics["nobody-made-it"].error is not None
