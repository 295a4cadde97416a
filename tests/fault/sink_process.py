"""A sink in a process of its own, with trips, a skewed clock, or a sabotage; settings from the environment.

The environment variable ``FAULT_SINK`` holds the rest as JSON: see `Orders`.
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
from auditstream_sink import sink as sink_module
from auditstream_sink.client import consumer_settings
from auditstream_sink.clock import SystemClock
from tests.fault.sabotage import SABOTAGES
from tests.fault.steps import Trip, arm

VARIABLE = "FAULT_SINK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What is peculiar about a sink.

    Attributes:
        meetings: Directory in which it meets the runner.
        parent_pid: With whom it dies.
        trips: What happens to it.
        skew_seconds: How far its clock is off.
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
        found: dict[str, Any] = json.loads(text)
        return cls(**{**found, "trips": [Trip(**trip) for trip in found["trips"]]})


class SkewedClock(SystemClock):
    """The machine's clock, off by some seconds; its monotonic side is right."""

    def __init__(self, seconds: float) -> None:
        self._skew = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._skew


def main() -> None:
    orders = Orders.from_json(os.environ[VARIABLE])
    die_with_parent(orders.parent_pid)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    if orders.sabotage:
        SABOTAGES[orders.sabotage]()
    arm(orders.trips, Path(orders.meetings))
    original = consumer_settings

    def shortened(settings: SinkSettings) -> dict[str, object]:
        return {**original(settings), "max.poll.interval.ms": orders.max_poll_ms}

    vars(sink_module)["consumer_settings"] = shortened
    mover = Sink(load(SinkSettings), clock=SkewedClock(orders.skew_seconds))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: mover.stop())
    try:
        totals = mover.run()
    except AuditstreamError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(asdict(totals)), file=sys.stderr)


if __name__ == "__main__":
    main()
