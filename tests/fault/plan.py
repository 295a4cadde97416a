"""The plan of a schedule, drawn from its seed alone."""

import random
from dataclasses import dataclass, replace
from typing import Literal

from tests.fault.load import Mix

SINK_KILLED = "sink-killed"
SINK_STOPPED = "sink-stopped"
SINK_STALLED = "sink-stalled"
CLICKHOUSE_KILLED = "clickhouse-killed"
CLICKHOUSE_FROZEN = "clickhouse-frozen"
CLICKHOUSE_CUT = "clickhouse-cut"
ANSWERS_SWALLOWED = "answers-swallowed"
BROKER_KILLED = "broker-killed"
LEADER_KILLED = "leader-killed"
BROKER_CUT = "broker-cut"
REGISTRY_AWAY = "registry-away"
TOPIC_RECREATED = "topic-recreated"
DISK_FULL = "disk-full"
REBALANCE = "rebalance"
CLOCK_SKEW = "clock-skew"
SECOND_DELIVERIES = "second-deliveries"

KINDS = (
    SINK_KILLED,
    CLICKHOUSE_CUT,
    SINK_STOPPED,
    BROKER_KILLED,
    SECOND_DELIVERIES,
    ANSWERS_SWALLOWED,
    CLICKHOUSE_KILLED,
    REBALANCE,
    CLICKHOUSE_FROZEN,
    TOPIC_RECREATED,
    SINK_STALLED,
    BROKER_CUT,
    REGISTRY_AWAY,
    CLOCK_SKEW,
    DISK_FULL,
    LEADER_KILLED,
)
"""The first fault of seed n is the n-th kind, modulo their number; a schedule may have others besides."""

_COMPANIONS = (SINK_KILLED, ANSWERS_SWALLOWED, CLICKHOUSE_CUT, REBALANCE, SINK_STOPPED, CLOCK_SKEW, SECOND_DELIVERIES)
"""Kinds that can be combined with any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """A schedule.

    Attributes:
        seed: Source of every choice in the plan and in its faults.
        kinds: Kinds of its faults, the first one of the seed first.
        events: Valid events sent once, at least.
        partitions: Of the topic.
        brokers: One, or three with three copies of each record.
        protocol: Protocol of the group.
        sinks: How many sinks run at first.
        session_ms: Session time-out of the classic protocol.
        max_poll_ms: ``max.poll.interval.ms``.
        flush_rows: Size of a batch.
        flush_seconds: Age of a batch.
        clickhouse_seconds: Time after which a statement's outcome counts as unknown.
        idempotent: Whether the emitter's client is idempotent.
        transactional: Whether it sends in transactions, and aborts some of them.
        delivery_ms: Time after which a record's delivery counts as failed.
        emit_seconds: Time to send the records in, at least.
        aftermath: Share of the events that are sent again after all are written.
        mix: Shares of the kinds of records.
    """

    seed: int
    kinds: tuple[str, ...]
    events: int
    partitions: int
    brokers: int
    protocol: Literal["classic", "consumer"]
    sinks: int
    session_ms: int
    max_poll_ms: int
    flush_rows: int
    flush_seconds: float
    clickhouse_seconds: int
    idempotent: bool
    transactional: bool
    delivery_ms: int
    emit_seconds: float
    aftermath: float
    mix: Mix

    def chance(self, name: str) -> random.Random:
        """A random source for one purpose, independent of the others."""
        return random.Random(f"{self.seed}/{name}")

    @property
    def order(self) -> tuple[int, bool, int]:
        """Sort key: schedules that share servers follow one another."""
        return (self.brokers, DISK_FULL in self.kinds, self.seed)


def draw(seed: int, *, events: int, only: str = "") -> FaultPlan:
    """The schedule of a seed.

    Args:
        seed: Seed of this schedule alone.
        events: How many valid events to send, at least.
        only: The first kind of fault; empty for the seed's own.
    """
    pick = random.Random(f"{seed}/plan")
    leading = only or KINDS[seed % len(KINDS)]
    companions = [kind for kind in _COMPANIONS if kind != leading]
    kinds = (leading, *pick.sample(companions, pick.choice((0, 1, 1, 2))))
    crowded = {REBALANCE, SINK_STALLED, SECOND_DELIVERIES} & set(kinds)
    plan = FaultPlan(
        seed=seed,
        kinds=kinds,
        events=events,
        partitions=pick.choice((2, 3, 4)) if crowded else pick.choice((1, 2, 3, 4)),
        brokers=3 if leading == LEADER_KILLED or (leading != BROKER_KILLED and pick.random() < 0.07) else 1,
        protocol="consumer" if pick.random() < 0.35 else "classic",
        sinks=2 if crowded or pick.random() < 0.3 else 1,
        session_ms=pick.choice((1500, 2000, 3000)),
        max_poll_ms=3_500 if leading == SINK_STALLED else 300_000,
        flush_rows=max(20, events // pick.choice((4, 6, 8, 12))),
        flush_seconds=pick.choice((0.1, 0.3, 1.0)),
        clickhouse_seconds=pick.choice((3, 5)),
        idempotent=pick.random() < 0.7,
        transactional=not {BROKER_KILLED, LEADER_KILLED, BROKER_CUT, TOPIC_RECREATED} & set(kinds)
        and pick.random() < 0.15,
        delivery_ms=pick.choice((1_500, 60_000)) if leading in {BROKER_KILLED, LEADER_KILLED, BROKER_CUT} else 60_000,
        emit_seconds=pick.choice((2.0, 3.0, 4.0)),
        aftermath=pick.choice((0.0, 0.01, 0.03)),
        mix=Mix(skew_days=pick.choice((1, 1, 1, 60, 300))),
    )
    if CLOCK_SKEW in kinds:
        plan = replace(plan, mix=replace(plan.mix, skewed=0.2, skew_days=pick.choice((2, 300))))
    if TOPIC_RECREATED in kinds:
        # An event that two sinks store at once from two partitions has one row in the end. If the topic is gone,
        # `verify` cannot tell this from a loss, and reports it.
        plan = replace(plan, mix=replace(plan.mix, elsewhere=0.0, at_once=0.0, races=0.0))
    elif SECOND_DELIVERIES in kinds:
        more = replace(plan.mix, again=0.15, elsewhere=0.08, at_once=0.06, conflicts=0.03, races=0.01)
        plan = replace(plan, aftermath=0.05, mix=more)
    return plan
