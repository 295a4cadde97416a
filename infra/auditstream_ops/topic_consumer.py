"""A consumer that joins no group and commits nothing, so that running sinks are not disturbed."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from auditstream_schemas.errors import OperationError
from auditstream_schemas.kafka import BROKER_SECONDS
from auditstream_schemas.settings import KafkaSettings

_POLL_SECONDS = 0.1
_CONSUME_AT_MOST = 500


class TopicConsumer:
    """Reads the partitions of one topic; a context manager. Not safe to share between threads.

    Every method blocks on the broker and raises OperationError when the broker does not answer. ``client`` is the name
    of this client in the broker's logs, and ``config`` are further properties of librdkafka.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, *, client: str, **config: str | int) -> None:
        self.topic = topic
        self._servers = kafka.kafka_bootstrap_servers
        self._consumer = Consumer(
            {
                **kafka.librdkafka_client(client),
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                **{name.replace("_", "."): value for name, value in config.items()},
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._consumer.close()

    def partitions(self, topic: str = "") -> list[int]:
        """The partitions of the topic, or of another one, in order; a topic that is missing is an OperationError."""
        name = topic or self.topic
        with self.errors():
            metadata = self._consumer.list_topics(name, timeout=BROKER_SECONDS).topics[name]
        if metadata.error is not None:
            raise OperationError(f"topic {name}: {metadata.error.str()}; run `auditstream topics`")
        return sorted(metadata.partitions)

    def consume(self, starts: Mapping[int, int]) -> Iterator[Message]:
        """Records from these offsets on, and a message with an error where a partition ends. Never stops."""
        with self.errors():
            self._consumer.assign([TopicPartition(self.topic, partition, start) for partition, start in starts.items()])
            silent_until = time.monotonic() + BROKER_SECONDS
            while True:
                messages = self._consumer.consume(_CONSUME_AT_MOST, _POLL_SECONDS)
                for message in messages:
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise OperationError(f"topic {self.topic}, partition {message.partition()}: {error.str()}")
                    yield message
                if messages:
                    # Set after the yield, because the caller may need longer than this for a record.
                    silent_until = time.monotonic() + BROKER_SECONDS
                elif time.monotonic() > silent_until:
                    raise OperationError(f"topic {self.topic}: no answer from {self._servers}")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns errors of the Kafka client into an OperationError."""
        try:
            yield
        except KafkaException as error:
            raise OperationError(f"no broker at {self._servers}: {error.args[0].str()}") from error
