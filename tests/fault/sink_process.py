"""A sink in a process of its own, with trips, a skewed clock, or a sabotage.

Its settings come from the environment; the variable ``FAULT_SINK`` has the `Orders` as JSON.
"""

import faulthandler
import json
import logging
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from auditstream_local.lifeline import die_with_parent
from auditstream_schemas.errors import AuditstreamError
from auditstream_schemas.settings import load
from auditstream_sink import Sink, SinkSettings
from auditstream_sink.clock import Clock
from tests.fault.sabotage import SABOTAGES, Sabotage
from tests.fault.steps import Trip, TrippedConsumer, arm

VARIABLE = "FAULT_SINK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Faults of one sink.

    Attributes:
        meetings: Directory of the files by which it meets the runner.
        parent_pid: Process whose end ends it.
        trips: Faults at its steps.
        skew_seconds: How far its clock is ahead.
        max_poll_ms: ``max.poll.interval.ms`` of its consumer.
        sabotage: A key of SABOTAGES, or empty.
    """

    meetings: str
    parent_pid: int
    trips: list[Trip] = field(default_factory=list)
    skew_seconds: float = 0.0
    max_poll_ms: int = 300_000
    sabotage: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "trips": [Trip(**trip) for trip in fields["trips"]]})


class SkewedClock(Clock):
    """The machine's clock, with a wrong time of day; its monotonic time is right."""

    def __init__(self, seconds: float) -> None:
        self._skew = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._skew


def main() -> None:
    orders = Orders.from_json(os.environ[VARIABLE])
    die_with_parent(orders.parent_pid)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    arm(orders.trips, Path(orders.meetings))

    class ImpatientConsumer(TrippedConsumer):
        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__({**config, "max.poll.interval.ms": orders.max_poll_ms})

    sabotage = SABOTAGES[orders.sabotage] if orders.sabotage else Sabotage()
    sink = Sink(
        load(SinkSettings),
        clock=SkewedClock(orders.skew_seconds),
        consumer_class=ImpatientConsumer,
        clickhouse_class=sabotage.clickhouse,
        dead_letters_class=sabotage.dead_letters,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: sink.stop())
    try:
        totals = sink.run()
    except AuditstreamError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(asdict(totals)), file=sys.stderr)


if __name__ == "__main__":
    main()
