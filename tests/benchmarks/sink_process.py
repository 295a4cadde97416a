"""The sink as it runs in service, in a child that says when it begins to fetch and when it commits.

``python -m tests.benchmarks.sink_process PARTITIONS``; settings come from the environment. It stops when it has read
the ends of so many partitions (0: never), so that the last batch does not wait for its time to pass; or on SIGTERM.
"""

import dataclasses
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence

from auditstream_schemas.settings import load
from auditstream_sink import Sink, SinkSettings
from auditstream_sink.metrics import PREFIX
from auditstream_storage import LedgerLine
from tests.benchmarks.child import peak_bytes, say


class _Listener(logging.Handler):
    """Learns from the sink's own log when it begins to read, and when it has come to the end of a partition."""

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
            # Told again after a pause: the offset in it tells one partition from another, but for a rare coincidence.
            self._ends.add(text)
            if len(self._ends) == self._partitions:
                self._sink.stop()
        elif record.levelno >= logging.WARNING:
            sys.stderr.write(f"sink: {text}\n")


def main(before_end: Callable[[], None] = lambda: None) -> None:
    def committed(lines: Sequence[LedgerLine]) -> None:
        spans = [(line.partition, line.first_offset, line.last_offset) for line in lines]
        say("commit", read=sum(line.read for line in lines), spans=spans, clock=time.time_ns())

    sink = Sink(load(SinkSettings), on_lines=committed)
    logger = logging.getLogger("auditstream.sink")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Listener(sink, int(sys.argv[1])))
    # The settings that tell of a partition's end are lost on the producer of dead letters, and it says so.
    logging.getLogger("auditstream.kafka").addHandler(logging.NullHandler())
    signal.signal(signal.SIGTERM, lambda _number, _frame: sink.stop())
    totals = sink.run()
    before_end()
    say("end", peak=peak_bytes(), steps=_steps(sink), **dataclasses.asdict(totals))


def _steps(sink: Sink) -> dict[str, float]:
    """Seconds that each step took in all, by the sink's own metric."""
    return {
        sample.labels["step"]: sample.value
        for family in sink._metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"{PREFIX}step_seconds_sum"
    }


if __name__ == "__main__":
    main()
