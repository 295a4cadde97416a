"""The time from ``emit`` until the event is visible, at a steady rate and with default settings."""

import time
from collections.abc import Sequence
from itertools import chain

from tests.benchmarks.child import Child, Report
from tests.benchmarks.figures import Figures
from tests.benchmarks.plan import BenchPlan
from tests.benchmarks.site import Site, site

RATES = (1_000, 10_000)
_SECONDS = 20.0
_WARM_UP_SECONDS = 5.0
_JOIN_SECONDS = 90.0
_TAIL_SECONDS = 120.0


def latency(plan: BenchPlan, figures: Figures) -> None:
    """Measure the time until the sink commits the event: its row was read back, and the ledger line is written.

    An event's `occurred_at` is the time just before ``emit``. Events of the first seconds are left out.
    """
    with site("local", plan.scratch) as where:
        for rate in RATES:
            waits, emitted = _waits(where, rate)
            waits.sort()
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
                index = min(len(waits) - 1, int(len(waits) * share))
                figures.add(f"sink.latency.{rate}.{name}", waits[index] / 1e9, "s", f"of {len(waits):,} events")
            figures.add(f"sink.latency.{rate}.emitted", emitted, "events/s", "rate of the emitter")


def _waits(where: Site, rate: int) -> tuple[list[int], float]:
    """Nanoseconds of each event until it was visible, and the rate of the emitter."""
    with where.topic() as topic, where.database() as database:
        env = where.env(topic, database)
        with Child("tests.benchmarks.sink_process", ["0"], env) as sink:
            sink.wait_for("reading", _JOIN_SECONDS)
            with Child("tests.benchmarks.emitter_process", [str(rate), str(_SECONDS)], env) as emitter:
                commits, end = _until_visible(sink, emitter)
        with where.client() as client:
            rows = client.query(
                "SELECT kafka_partition, kafka_offset, toUnixTimestamp64Nano(occurred_at) "
                f"FROM {database}.events WHERE toUnixTimestamp64Nano(occurred_at) >= {{since:Int64}}",
                parameters={"since": end.more["started"] + int(_WARM_UP_SECONDS * 1e9)},
            ).result_rows
    visible_at = {
        (partition, offset): said.more["clock"]
        for said in commits
        for partition, first, last in said.more["offset_ranges"]
        for offset in range(first, last + 1)
    }
    return [visible_at[partition, offset] - moment for partition, offset, moment in rows], end.more["rate"]


def _until_visible(sink: Child, emitter: Child) -> tuple[Sequence[Report], Report]:
    """The commits of the sink until it has read every emitted event."""
    commits: list[Report] = []
    end: Report | None = None
    deadline = time.monotonic() + _SECONDS + _TAIL_SECONDS
    while end is None or sum(said.more["read"] for said in commits) < end.more["events"]:
        for said in chain([] if end else [emitter.poll(0.01)], [sink.poll(0.05)]):
            if said is not None and said.kind == "commit":
                commits.append(said)
            elif said is not None and said.kind == "end":
                end = said
        if time.monotonic() > deadline:
            emitter.next(0)
    return commits, end
