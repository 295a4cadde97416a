"""The sink of `sink_process`, with a clock on every call of its warehouse and on its loop.

``python -m tests.benchmarks.steps_process PARTITIONS CLICKHOUSE_PID``. Before its last line it says one ``step`` for
each method: how often it was called, seconds that passed, processor seconds of the thread that called it, and those of
the engine meanwhile (whatever it did them for: merges run beside).
"""

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from auditstream_sink.batch_writer import BatchWriter
from auditstream_sink.clickhouse_writer import ClickHouseWriter
from auditstream_sink.dead_letters import DeadLetters
from auditstream_sink.sink import Sink
from tests.benchmarks import sink_process
from tests.benchmarks.child import say
from tests.benchmarks.site import cpu_seconds


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    clickhouse_cpu: float = 0.0


class _TimedConsumer:
    """A consumer whose ``consume`` is timed."""

    def __init__(self, consumer: Any, time_it: Callable[..., Any]) -> None:
        self._consumer = consumer
        self.consume = time_it("consume", consumer.consume)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


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
                found = sums.setdefault(name, _Sum())
                found.calls += 1
                found.wall += time.monotonic() - before[0]
                found.cpu += time.thread_time() - before[1]
                found.clickhouse_cpu += cpu_seconds(clickhouse) - before[2]

        return wrapper

    for owner, names in (
        (
            ClickHouseWriter,
            [name for name, value in vars(ClickHouseWriter).items() if callable(value) and name[0] != "_"],
        ),
        (DeadLetters, ["send"]),
        (BatchWriter, ["settle"]),
        (Sink, ["_gather"]),
    ):
        for name in names:
            setattr(owner, name, timed(f"{owner.__name__.lower()}.{name.lstrip('_')}", getattr(owner, name)))
    begin = Sink.__init__

    @functools.wraps(begin)
    def with_timed_consumer(sink: Any, *arguments: Any, **named: Any) -> None:
        begin(sink, *arguments, **named)
        sink._consumer = _TimedConsumer(sink._consumer, timed)

    setattr(Sink, "__init__", with_timed_consumer)  # noqa: B010 - a type checker would refuse the assignment

    def tell() -> None:
        for name, found in sums.items():
            say(
                *("step",),
                name=name,
                calls=found.calls,
                wall=found.wall,
                own=found.cpu,
                clickhouse_cpu=found.clickhouse_cpu,
            )

    sink_process.main(before_end=tell)


if __name__ == "__main__":
    main()
