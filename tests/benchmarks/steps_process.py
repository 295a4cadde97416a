"""The sink of `sink_process`, with every statement on ClickHouse and every poll timed.

``python -m tests.benchmarks.steps_process PARTITIONS CLICKHOUSE_PID``. Before its last line it prints one ``step`` for
each method: number of calls, wall seconds, processor seconds of the calling thread, and processor seconds of the engine
meanwhile (those of merges that run at the same time included).
"""

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, Message

from auditstream_sink.batch_writer import BatchWriter
from auditstream_sink.clickhouse_writer import ClickHouseWriter
from auditstream_sink.dead_letters import DeadLetters
from tests.benchmarks import sink_process
from tests.benchmarks.child import say
from tests.benchmarks.site import cpu_seconds


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    clickhouse_cpu: float = 0.0


def main() -> None:
    clickhouse = int(sys.argv[2])
    sums: dict[str, _Sum] = {}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            before = time.monotonic(), time.thread_time(), cpu_seconds(clickhouse)
            try:
                return call(*arguments, **named)
            finally:
                step = sums.setdefault(name, _Sum())
                step.calls += 1
                step.wall += time.monotonic() - before[0]
                step.cpu += time.thread_time() - before[1]
                step.clickhouse_cpu += cpu_seconds(clickhouse) - before[2]

        return wrapper

    class TimedConsumer(Consumer):
        def consume(self, *arguments: Any, **named: Any) -> list[Message]:
            messages: list[Message] = timed("consume", super().consume)(*arguments, **named)
            return messages

    for owner, names in (
        (
            ClickHouseWriter,
            [name for name, value in vars(ClickHouseWriter).items() if callable(value) and name[0] != "_"],
        ),
        (DeadLetters, ["send"]),
        (BatchWriter, ["write"]),
    ):
        for name in names:
            setattr(owner, name, timed(f"{owner.__name__.lower()}.{name}", getattr(owner, name)))

    def report() -> None:
        for name, step in sums.items():
            say(
                *("step",),
                name=name,
                calls=step.calls,
                wall=step.wall,
                own=step.cpu,
                clickhouse_cpu=step.clickhouse_cpu,
            )

    sink_process.main(before_end=report, consumer_class=TimedConsumer)


if __name__ == "__main__":
    main()
