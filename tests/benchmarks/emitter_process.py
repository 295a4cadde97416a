"""A service that emits at a steady rate: ``python -m tests.benchmarks.emitter_process RATE SECONDS``."""

import sys
import time
from dataclasses import replace

from uuid_utils.compat import uuid7

from auditstream_ops.demo_events import demo_events
from auditstream_producer import AuditProducer, ProducerSettings
from auditstream_schemas.errors import OperationError
from auditstream_schemas.settings import load
from tests.benchmarks.child import say

_PATTERNS = 1000
_TICK_SECONDS = 0.005
_FLUSH_SECONDS = 60.0


def main() -> None:
    rate, seconds = int(sys.argv[1]), float(sys.argv[2])
    patterns = list(demo_events(_PATTERNS, now=time.time_ns(), seed=2))
    emitted = 0
    with AuditProducer(load(ProducerSettings)) as producer:
        started, clock = time.monotonic(), time.time_ns()
        while (passed := time.monotonic() - started) < seconds:
            for number in range(emitted, int(passed * rate)):
                pattern = patterns[number % _PATTERNS]
                producer.emit_event(replace(pattern, id=uuid7(), occurred_at=time.time_ns()))
                emitted += 1
            time.sleep(_TICK_SECONDS)
        reached = emitted / (time.monotonic() - started)
        if producer.flush(_FLUSH_SECONDS):
            raise OperationError("the broker did not take all events")
    say("end", events=emitted, rate=reached, started=clock)


if __name__ == "__main__":
    main()
