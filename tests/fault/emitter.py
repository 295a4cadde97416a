"""Sends a schedule's records over some seconds, and notes the broker's acknowledgements."""

import logging
import threading
import time
from collections.abc import Sequence
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.fault.load import NUMBER, LoadRecord

_LOGGER = logging.getLogger("auditstream.kafka.emitter")
_CHUNKS = 40
_FLUSH_SECONDS = 90
_ABORTED = 7


class Emitter:
    """A service that emits events, in a thread of its own.

    Args:
        bootstrap_servers: The brokers.
        topic: Topic of the events.
        idempotent: Whether retries of the client cannot double records.
        transactional: Whether it sends in transactions, and aborts some of them. Brokers must not be killed then.
        delivery_ms: After so long without an acknowledgement a record counts as failed and is sent again. Whether the
            broker has stored the first one is not known.

    Attributes:
        incarnation: How often the topic was created again; noted with each acknowledgement.
        sent: Records given to the client, records sent again included.
    """

    def __init__(
        self, bootstrap_servers: str, topic: str, *, idempotent: bool, transactional: bool, delivery_ms: int
    ) -> None:
        self._settings = {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": idempotent,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
            "delivery.timeout.ms": delivery_ms,
            "request.timeout.ms": min(delivery_ms, 5_000),
            "message.send.max.retries": 1_000_000,
            "retry.backoff.ms": 50,
            "topic.metadata.refresh.fast.interval.ms": 50,
            "logger": _LOGGER,
        }
        self._topic = topic
        self._transactional = transactional
        self.incarnation = 0
        self.sent = 0
        self._producer = self._new_producer()
        self._may_send = threading.Event()
        self._may_send.set()
        self._paused = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, records: Sequence[LoadRecord], seconds: float) -> None:
        """Send records over some seconds until each is acknowledged; does not block."""
        self._thread = threading.Thread(target=self._run, args=(records, seconds), daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether all records are acknowledged; false before ``begin``.

        Raises:
            RuntimeError: They were not acknowledged within minutes.
        """
        if self._thread is None or self._thread.is_alive():
            return False
        if self._error is not None:
            raise RuntimeError("the emitter failed") from self._error
        return True

    @property
    def is_paused(self) -> bool:
        """Whether all sent records are acknowledged and no other is being sent."""
        return self._paused.is_set() or self.is_done

    def pause(self) -> None:
        """Stop sending as soon as the sent records are acknowledged; does not block."""
        self._may_send.clear()

    def resume(self) -> None:
        """Send on, with a new client: the old one may not accept a new topic of the same name."""
        self._producer = self._new_producer()
        self._may_send.set()

    def stop(self) -> None:
        """Stop for good. Blocks until the thread has ended."""
        self._stopped.set()
        self._may_send.set()
        if self._thread is not None:
            self._thread.join(_FLUSH_SECONDS)

    def _run(self, records: Sequence[LoadRecord], seconds: float) -> None:
        try:
            size = max(1, len(records) // _CHUNKS)
            for number, start in enumerate(range(0, len(records), size)):
                if self._stopped.is_set():
                    return
                chunk = records[start : start + size]
                if self._transactional:
                    self._send_together(chunk, abort=number % _ABORTED == _ABORTED - 1)
                else:
                    self._send(chunk)
                if not self._may_send.is_set():
                    self._wait_for_acknowledgements(records[: start + size])
                    self._paused.set()
                    self._may_send.wait()
                    self._paused.clear()
                self._stopped.wait(seconds / _CHUNKS)
            self._wait_for_acknowledgements(records)
        except (KafkaException, TimeoutError) as error:
            self._error = error

    def _send_together(self, chunk: Sequence[LoadRecord], *, abort: bool) -> None:
        """Send in one transaction; with ``abort``, send in a transaction that is aborted first."""
        if abort:
            self._producer.begin_transaction()
            self._send(chunk)
            self._producer.flush(_FLUSH_SECONDS)
            self._producer.abort_transaction(_FLUSH_SECONDS)
            for record in chunk:
                record.acked.clear()
                record.failures.clear()
        self._producer.begin_transaction()
        self._send(chunk)
        self._producer.commit_transaction(_FLUSH_SECONDS)

    def _new_producer(self) -> Producer:
        if not self._transactional:
            return Producer(self._settings)
        settings = {"enable.idempotence": True, "transactional.id": uuid4().hex, "transaction.timeout.ms": 60_000}
        producer = Producer({**self._settings, **settings})
        producer.init_transactions(_FLUSH_SECONDS)
        return producer

    def _wait_for_acknowledgements(self, records: Sequence[LoadRecord]) -> None:
        """Wait for acknowledgements; send failed records again."""
        until = time.monotonic() + _FLUSH_SECONDS
        while not self._stopped.is_set():
            self._producer.flush(1)
            if len(self._producer) == 0:
                failed = [record for record in records if not record.acked]
                if not failed:
                    return
                # After some errors an idempotent client cannot send any more.
                self._producer = self._new_producer()
                self._send(failed)
            if time.monotonic() > until:
                raise TimeoutError(f"{len(self._producer)} records without an acknowledgement")

    def _send(self, records: Sequence[LoadRecord]) -> None:
        for record in records:
            incarnation = self.incarnation

            def on_delivery(
                error: KafkaError | None, message: Message, record: LoadRecord = record, at: int = incarnation
            ) -> None:
                if error is not None:
                    record.failures.append(error.str())
                else:
                    record.acked.append((at, message.partition() or 0, message.offset() or 0))

            while True:
                try:
                    self._producer.produce(
                        self._topic,
                        key=record.identity or None,
                        value=record.value,
                        partition=record.partition,
                        headers=[(NUMBER, str(record.number).encode())],
                        on_delivery=on_delivery,
                    )
                except BufferError:
                    self._producer.poll(0.1)
                    if self._stopped.is_set():
                        return
                except KafkaException as error:
                    record.failures.append(str(error))
                    break
                else:
                    break
            self.sent += 1
            if self.sent % 100 == 0:
                self._producer.poll(0)
        self._producer.poll(0)
