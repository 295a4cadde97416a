"""The parts of one schedule: topic, database and group, emitter and sinks, and the proxies between them."""

import random
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from urllib3.exceptions import HTTPError

from auditstream_ops.clickhouse import connect
from auditstream_ops.deploy.topics import TopicPlan, create_topics
from auditstream_ops.ledger.topic_reader import TopicReader
from auditstream_schemas.errors import OperationError
from auditstream_schemas.settings import ClickHouseSettings, KafkaSettings
from tests.fault.emitter import Emitter
from tests.fault.evidence import RecordPosition, read_topic
from tests.fault.fleet import Fleet
from tests.fault.load import FaultLoad, LoadRecord
from tests.fault.plan import BROKER_CUT, DISK_FULL, FaultPlan
from tests.fault.servers import Brokers, Servers
from tests.support.fix_stack import Tenant, prepared_tenant
from tests.support.pipeline import schema_id
from tests.support.tcp_proxy import TcpProxy

Pause = Generator[None, None, None]
"""The type of a fault: a generator that yields whenever it waits."""

TICK_SECONDS = 0.02
_CHECK_SECONDS = 0.25


class LateError(Exception):
    """A schedule did not end in time."""


class Scene:
    """The parts of one schedule; a context manager.

    Attributes:
        plan: Its plan.
        servers: The servers of the run.
        brokers: The cluster of this schedule.
        tenant: Topic, database and group; its endpoints are the servers, without the proxies.
        emitter: The service that emits.
        fleet: The sinks.
        clickhouse: The proxy between the sinks and ClickHouse.
        client: A connection to ClickHouse, without the proxy.
        records: All records that are sent.
        past: Records of deleted topics, by topic id.
        outages: How many servers are killed or frozen; the scene sends no request meanwhile.
        notes: The faults that happened, for the log.
    """

    def __init__(self, plan: FaultPlan, servers: Servers, directory: Path, *, sabotage: str, deadline: float) -> None:
        self.plan = plan
        self.servers = servers
        self._directory = directory
        self._sabotage = sabotage
        self._deadline = deadline
        self._stack = ExitStack()
        self.notes: list[str] = []
        self.past: dict[str, list[RecordPosition]] = {}
        self.records: list[LoadRecord] = []
        self.outages = 0
        self._checked_at = 0.0
        self._drained = False

    def __enter__(self) -> Self:
        plan = self.plan
        self.brokers: Brokers = self.servers.brokers(plan.brokers)
        endpoints = self.servers.endpoints(self.brokers, small_disk=DISK_FULL in plan.kinds)
        self.tenant: Tenant = prepared_tenant(endpoints, partitions=plan.partitions, replication=plan.brokers)
        self.clickhouse = self._stack.enter_context(TcpProxy(endpoints.clickhouse_url.removeprefix("http://")))
        relayed = BROKER_CUT in plan.kinds
        outward = self.brokers.relayed_servers if relayed else self.brokers.servers
        self.emitter = Emitter(
            outward,
            self.tenant.topic,
            idempotent=plan.idempotent,
            transactional=plan.transactional,
            delivery_ms=plan.delivery_ms,
        )
        self.fleet = Fleet(
            env={
                **self.tenant.env_of("sink"),
                "AUDITSTREAM_KAFKA_BOOTSTRAP_SERVERS": outward,
                "AUDITSTREAM_CLICKHOUSE_URL": f"http://{self.clickhouse.address}",
                "AUDITSTREAM_CLICKHOUSE_TIMEOUT_SECONDS": str(plan.clickhouse_seconds),
                "AUDITSTREAM_GROUP_PROTOCOL": plan.protocol,
                "AUDITSTREAM_SESSION_TIMEOUT_MS": str(plan.session_ms),
                "AUDITSTREAM_FLUSH_ROWS": str(plan.flush_rows),
                "AUDITSTREAM_FLUSH_SECONDS": str(plan.flush_seconds),
                "AUDITSTREAM_DRAIN_SECONDS": "8",
            },
            directory=self._directory,
            size=plan.sinks,
            max_poll_ms=plan.max_poll_ms,
            sabotage=self._sabotage,
        )
        self._stack.callback(self.fleet.kill_all)
        self._stack.callback(self.emitter.stop)
        self.load = FaultLoad(
            plan.chance("load"), plan.mix, plan.events, plan.partitions, schema_id(self.tenant), time.time_ns()
        )
        self.client: Client = connect(self.clickhouse_settings)
        self._stack.callback(self.client.close)
        self._consumer = Consumer(
            {**self.kafka_settings.librdkafka_client("watch"), "group.id": "watch", "auto.offset.reset": "error"}
        )
        self._stack.callback(self._consumer.close)
        self.topic_id = self._topic_id()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def kafka_settings(self) -> KafkaSettings:
        """The brokers, without the proxies."""
        return KafkaSettings(kafka_bootstrap_servers=self.brokers.servers, topic=self.tenant.topic)

    @property
    def clickhouse_settings(self) -> ClickHouseSettings:
        """ClickHouse, without the proxy."""
        return ClickHouseSettings(
            clickhouse_url=self.tenant.endpoints.clickhouse_url, clickhouse_database=self.tenant.database
        )

    def chance(self, name: str) -> random.Random:
        """A random source for one purpose."""
        return self.plan.chance(name)

    def note(self, text: str) -> None:
        """Note a fault for the log."""
        self.notes.append(text)

    def tick(self) -> None:
        """Wait a moment and replace sinks that have ended.

        Raises:
            LateError: The schedule has taken too long.
        """
        if time.monotonic() > self._deadline:
            raise LateError
        self.fleet.tick()
        time.sleep(TICK_SECONDS)

    @property
    def is_idle(self) -> bool:
        """Whether everything is sent and every offset is in the ledger, so that faults have no effect any more."""
        return self.emitter.is_done and self.is_drained()

    def is_drained(self) -> bool:
        """Whether the ledger goes to the end of the topic; false during an outage."""
        now = time.monotonic()
        if self.outages:
            return False
        if now - self._checked_at < _CHECK_SECONDS:
            return self._drained
        try:
            self._drained = self.topic_ends() == self.ledger_ends()
        except (ClickHouseError, HTTPError, OSError, KafkaException):
            self._drained = False
        self._checked_at = time.monotonic()
        return self._drained

    def forget_drained(self) -> None:
        """Check again: more records were sent."""
        self._drained, self._checked_at = False, 0.0

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Send no request to any server within this block."""
        self.outages += 1
        try:
            yield
        finally:
            self.outages -= 1

    def pause(self, seconds: float) -> Pause:
        """Wait some seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            yield

    def until(self, condition: Callable[[], object], seconds: float) -> Pause:
        """Wait until the condition holds, the seconds have passed, or the scene is idle."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end and not self.is_idle:
            yield

    def recreate_topic(self) -> Pause:
        """Delete the topic and create it again; keeps its records in ``past``. The emitter must be paused."""
        self.past[self.topic_id] = read_topic(self.kafka_settings)
        admin = AdminClient(self.kafka_settings.librdkafka_client("recreate"))
        for deleted in admin.delete_topics([self.tenant.topic], operation_timeout=30).values():
            deleted.result(30)
        yield from self.pause(self.chance("recreate").uniform(0.2, 1.5))
        plan = TopicPlan(partitions=self.plan.partitions, replication=self.plan.brokers)
        until = time.monotonic() + 30
        while not create_topics(self.kafka_settings, plan, dead_letter_topic=self.tenant.dlq_topic):
            # The broker has not finished deleting the old one.
            if time.monotonic() > until:
                raise LateError
            yield
        self.topic_id = self._topic_id()
        self.emitter.incarnation += 1
        self.forget_drained()

    def leader(self, partition: int) -> int:
        """Node id of the broker that leads a partition."""
        topic = self._consumer.list_topics(self.tenant.topic, timeout=10).topics[self.tenant.topic]
        return max(1, int(topic.partitions[partition].leader))

    def _topic_id(self) -> str:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with TopicReader(self.kafka_settings) as reader:
                try:
                    topic_id = reader.topic_id()
                except OperationError:
                    topic_id = None
            if topic_id is not None:
                return str(topic_id)
            time.sleep(0.2)
        raise LateError

    def topic_ends(self) -> dict[int, int]:
        """One past the last record of each partition that has any."""
        ends = {}
        for partition in range(self.plan.partitions):
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self.tenant.topic, partition), timeout=2)
            if high:
                ends[partition] = high
        return ends

    def ledger_ends(self) -> dict[int, int]:
        """One past the last offset in the ledger of each partition that has any."""
        rows = self.client.query(
            f"SELECT partition, max(last_offset) + 1 FROM {self.tenant.database}.ledger "
            "WHERE topic_id = {topic_id:UUID} GROUP BY partition",
            parameters={"topic_id": self.topic_id},
        ).result_rows
        return {int(partition): int(end) for partition, end in rows}
