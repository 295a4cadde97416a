"""The accounts: is every offset of the topic in exactly one ledger line, and does each line add up?"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from auditstream_schemas.errors import OperationError
from auditstream_schemas.settings import KafkaSettings

_BROKER_SECONDS = 10
_POLL_SECONDS = 0.1
_CONSUME_AT_MOST = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionAccount:
    """One partition's books, added up.

    Attributes:
        partition: Kafka partition.
        first_offset: Where the books begin.
        last_offset: Where they end, inclusive; one less than ``first_offset`` when there are none yet.
        batches: Ledger lines.
        read: Records read.
        stored: New rows.
        duplicates: Second deliveries of an id.
        conflicts: Other content under a known id.
        invalid: Broken records.
        expired: Older than the retention on arrival.
        rows: Rows that the event log holds from this partition, seen through the view.
        problems: What does not balance; empty when all is well.
    """

    partition: int
    first_offset: int
    last_offset: int
    batches: int
    read: int
    stored: int
    duplicates: int
    conflicts: int
    invalid: int
    expired: int
    rows: int
    problems: tuple[str, ...]


def accounts(client: Client, database: str, kafka: KafkaSettings) -> list[PartitionAccount]:
    """Add up the books of a topic, those of its newest id, and hold them against topic and table.

    Blocks on ClickHouse and on the broker.

    Args:
        client: ClickHouse.
        database: A checked identifier.
        kafka: The topic and its broker.

    Raises:
        OperationError: The broker or the topic is not there.
    """
    lines: dict[int, list[Mapping[str, Any]]] = {}
    newest = f"topic_id = (SELECT argMax(topic_id, at) FROM {database}.ledger WHERE topic = {{topic:String}})"
    for line in client.query(
        f"SELECT * FROM {database}.ledger FINAL WHERE topic = {{topic:String}} AND {newest} "
        "ORDER BY partition, first_offset",
        parameters={"topic": kafka.topic},
    ).named_results():
        lines.setdefault(int(line["partition"]), []).append(line)
    rows: dict[int, int] = {
        int(partition): int(count)
        for partition, count in client.query(
            f"SELECT kafka_partition, count() FROM {database}.events WHERE kafka_topic = {{topic:String}} "
            f"AND kafka_{newest} GROUP BY kafka_partition",
            parameters={"topic": kafka.topic},
        ).result_rows
    }
    ends = _topic_ends(kafka, {partition: int(found[-1]["last_offset"]) + 1 for partition, found in lines.items()})
    return [
        _account(partition, lines.get(partition, []), rows.get(partition, 0), ends.get(partition))
        for partition in sorted({*lines, *ends})
    ]


def _topic_ends(kafka: KafkaSettings, accounted: Mapping[int, int]) -> dict[int, int]:
    """One past the last record of each partition, found by reading on from where the books end.

    A watermark would be quicker to ask for, but the local stack's broker gives one that lags behind.
    """
    consumer = Consumer(
        {
            **kafka.librdkafka_client("accounts"),
            "group.id": "auditstream-accounts",  # required by the client; nothing is committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    try:
        found = consumer.list_topics(kafka.topic, timeout=_BROKER_SECONDS).topics[kafka.topic]
        if found.error is not None:
            raise OperationError(f"topic {kafka.topic}: {found.error.str()}; run `auditstream topics`")
        ends = {partition: accounted.get(partition, 0) for partition in found.partitions}
        consumer.assign(
            [
                TopicPartition(kafka.topic, partition, accounted.get(partition, OFFSET_BEGINNING))
                for partition in found.partitions
            ]
        )
        unread = set(found.partitions)
        silent_until = time.monotonic() + _BROKER_SECONDS
        while unread:
            if time.monotonic() > silent_until:
                raise OperationError(f"topic {kafka.topic}: no answer from {kafka.kafka_bootstrap_servers}")
            for message in consumer.consume(_CONSUME_AT_MOST, _POLL_SECONDS):
                silent_until = time.monotonic() + _BROKER_SECONDS
                error, partition, offset = message.error(), message.partition(), message.offset()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise OperationError(f"topic {kafka.topic}, partition {partition}: {error.str()}")
                if partition is None or offset is None:
                    continue
                if error is None:
                    ends[partition] = offset + 1
                else:
                    unread.discard(partition)
    except KafkaException as error:
        raise OperationError(f"no broker at {kafka.kafka_bootstrap_servers}: {error.args[0].str()}") from error
    finally:
        consumer.close()
    return ends


def _account(partition: int, lines: Sequence[Mapping[str, Any]], rows: int, end: int | None) -> PartitionAccount:
    totals = {
        name: sum(int(line[name]) for line in lines)
        for name in ("read", "stored", "duplicates", "conflicts", "invalid", "expired")
    }
    first = int(lines[0]["first_offset"]) if lines else 0
    last = int(lines[-1]["last_offset"]) if lines else first - 1
    problems = [*_line_problems(lines)]
    if rows != totals["stored"]:
        problems.append(f"the books say {totals['stored']} stored, the event log has {rows} rows")
    if end is not None and end > last + 1:
        problems.append(f"offsets {last + 1} to {end - 1} are not in the books yet")
    return PartitionAccount(
        partition=partition,
        first_offset=first,
        last_offset=last,
        batches=len(lines),
        rows=rows,
        problems=tuple(problems),
        **totals,
    )


def _line_problems(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    problems = []
    expected = None
    for line in lines:
        first, last = int(line["first_offset"]), int(line["last_offset"])
        if expected is not None and first != expected:
            what = "are in no batch" if first > expected else "are in two batches"
            problems.append(f"offsets {min(first, expected)} to {max(first, expected) - 1} {what}")
        expected = last + 1
        parts = sum(int(line[name]) for name in ("stored", "duplicates", "conflicts", "invalid", "expired"))
        empty = last - first + 1 - int(line["read"])
        if empty:
            problems.append(
                f"offsets {first} to {last}: {empty} of them held no record; "
                "a producer that uses transactions leaves such, else records were skipped"
            )
        if int(line["read"]) != parts:
            problems.append(f"offsets {first} to {last}: read {line['read']}, accounted for {parts}")
    return problems
