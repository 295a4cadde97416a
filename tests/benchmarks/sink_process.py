"""The sink in a child process that reports when it begins to fetch and when it commits.

``python -m tests.benchmarks.sink_process PARTITIONS``; settings come from the environment. It stops when it has read
so many partitions to their ends (0: never), so that the last batch does not wait for ``flush_seconds``; or on SIGTERM.
"""

import dataclasses
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer

from auditstream_schemas.settings import load
from auditstream_sink import Sink, SinkSettings
from auditstream_sink.metrics import PREFIX
from auditstream_storage import LedgerLine
from tests.benchmarks.child import peak_bytes, say


class _Listener(logging.Handler):
    """Sees in the sink's log when it begins to read, and when it has read a partition to its end."""

    def __init__(self, sink: Sink, partitions: int) -> None:
        super().__init__()
        self._sink = sink
        self._partitions = partitions
        self._ends: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("reading on from"):
            say("reading")
        elif "end of partition" in text:
            # Logged again after a pause. Two partitions that end at one offset would count as one; that is rare.
            self._ends.add(text)
            if len(self._ends) == self._partitions:
                self._sink.stop()
        elif record.levelno >= logging.WARNING:
            sys.stderr.write(f"sink: {text}\n")


def main(before_end: Callable[[], None] = lambda: None, consumer_class: type[Consumer] = Consumer) -> None:
    def committed(lines: Sequence[LedgerLine]) -> None:
        offset_ranges = [(line.partition, line.first_offset, line.last_offset) for line in lines]
        say("commit", read=sum(line.read for line in lines), offset_ranges=offset_ranges, clock=time.time_ns())

    sink = Sink(load(SinkSettings), on_lines=committed, consumer_class=consumer_class)
    logger = logging.getLogger("auditstream.sink")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Listener(sink, int(sys.argv[1])))
    # The producer of dead letters warns about consumer settings in the configuration file.
    logging.getLogger("auditstream.kafka").addHandler(logging.NullHandler())
    signal.signal(signal.SIGTERM, lambda _number, _frame: sink.stop())
    totals = sink.run()
    before_end()
    say("end", peak=peak_bytes(), steps=_steps(sink), **dataclasses.asdict(totals))


def _steps(sink: Sink) -> dict[str, float]:
    """Total seconds of each step, from the sink's own metric."""
    return {
        sample.labels["step"]: sample.value
        for family in sink.metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"{PREFIX}step_seconds_sum"
    }


if __name__ == "__main__":
    main()
