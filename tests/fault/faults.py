"""The faults: each is a generator that disturbs a scene, and yields whenever it waits.

A fault ends early if all records are sent and in the ledger. It repairs what it has broken.
"""

import itertools
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator
from functools import partial

from auditstream_local.server import Server
from tests.fault import plan as kinds
from tests.fault.fleet import Member
from tests.fault.scene import Pause, Scene
from tests.fault.servers import Ballast
from tests.fault.steps import LOOP_STEPS, MOMENTS, Trip, When
from tests.support.tcp_proxy import Conversation, TcpProxy

Fault = Callable[[Scene], Pause]

_WAIT_SECONDS = 20.0
_INSERTS: tuple[tuple[str, When], ...] = (("insert", "amid"),) * 45 + (("insert", "before"),) * 10
_STATEMENTS = {
    "stage": rb"INSERT[ +]INTO[ +]\S*stage_",
    "classify": rb"INSERT INTO \S*status_",
    "insert": rb"INSERT INTO \S*event_log",
    "copies": rb"INSERT INTO \S*copies",
    "ledger": rb"INSERT INTO \S*ledger",
}


def kill_sink(scene: Scene) -> Pause:
    """Three times SIGKILL of the sink before, during or after a step; the seeds cover all moments in turn."""
    pick = scene.chance("kill-sink")
    turn = scene.plan.seed // len(kinds.KINDS) * 3
    moments = [MOMENTS[(turn + number) % len(MOMENTS)] for number in range(3)]
    for step, when in moments:
        trip = Trip(step=step, when=when, call=pick.choice((1, 2, 2, 3)), act="kill", seconds=pick.uniform(0, 0.04))
        scene.fleet.trips.append([trip])
    while scene.fleet.trips and not scene.is_idle:
        yield
    scene.fleet.trips.clear()


def stop_sink(scene: Scene) -> Pause:
    """SIGSTOP until another sink has taken over after the session time-out, then SIGCONT while that one inserts."""
    pick = scene.chance("stop-sink")
    step, when = pick.choice((*_INSERTS, *MOMENTS))
    trip = Trip(step=step, when=when, call=pick.choice((1, 2, 3)), act="stop", seconds=pick.uniform(0, 0.03))
    own_trips = [trip]
    scene.fleet.trips.append(own_trips)
    # Trips of another fault may be first in the queue.
    yield from scene.until(lambda: all(trips is not own_trips for trips in scene.fleet.trips), 3 * _WAIT_SECONDS)
    yield from scene.until(scene.fleet.asleep, _WAIT_SECONDS)
    for sleeper in scene.fleet.asleep():
        scene.note(f"asleep: {trip}")
        wake_when: When | None = pick.choice(("amid", "before", "after", None))
        wake = (
            []
            if wake_when is None
            else [
                Trip(step="insert", when=wake_when, call=pick.choice((1, 2)), act="wake", pid=sleeper.pid, seconds=0.01)
            ]
        )
        scene.fleet.trips.appendleft(wake)
        scene.fleet.size += 1
        # The session must have timed out, and the group must have had time to assign the partitions to another sink.
        shortest = scene.plan.session_ms / 1000 + 1.5
        yield from scene.pause(shortest)
        yield from scene.until(partial(_is_awake, sleeper), pick.uniform(1, 6))
        if sleeper.is_asleep:
            sleeper.process.send_signal(signal.SIGCONT)
        yield from scene.pause(pick.uniform(0.5, 2))
        scene.fleet.size -= 1


def stall_sink(scene: Scene) -> Pause:
    """The sink's loop is held up for longer than ``max.poll.interval.ms`` while its heartbeats go on."""
    pick = scene.chance("stall-sink")
    for _ in range(2):
        step = pick.choice((*LOOP_STEPS, "insert"))
        when: When = pick.choice(("before", "after"))
        seconds = scene.plan.max_poll_ms / 1000 + pick.uniform(0.5, 2)
        scene.fleet.trips.append(
            [Trip(step=step, when=when, call=pick.choice((1, 2, 3)), act="stall", seconds=seconds)]
        )
    yield from scene.pause(scene.plan.max_poll_ms / 1000 + 4)


def kill_clickhouse(scene: Scene) -> Pause:
    """SIGKILL of ClickHouse while it inserts, and its restart."""
    pick = scene.chance("kill-clickhouse")
    server = scene.servers.clickhouse
    for _ in range(pick.choice((1, 2))):
        statement = pick.choice(("insert", "insert", "insert", "stage", "classify", "ledger"))
        after = pick.uniform(0, 0.05)
        if not (yield from _at_nth(scene, statement, pick.choice((1, 2, 3)), lambda _: None)):
            return
        yield from scene.pause(after)
        with scene.outage():
            server.kill()
            scene.note(f"ClickHouse killed at {statement}")
            yield from scene.pause(pick.uniform(0.1, 1.5))
            yield from start(scene, server)
        yield from scene.pause(0.3)


def freeze_clickhouse(scene: Scene) -> Pause:
    """ClickHouse is frozen during a statement until the sink's time-out has passed; then it executes the statement."""
    pick = scene.chance("freeze-clickhouse")
    for _ in range(pick.choice((1, 2))):
        statement = pick.choice(("insert", "insert", "stage", "classify", "ledger"))
        if not (yield from _at_nth(scene, statement, pick.choice((1, 2, 3)), lambda _: None)):
            return
        yield from scene.pause(pick.uniform(0, 0.03))
        scene.note(f"ClickHouse frozen at {statement}")
        yield from _freeze(scene, scene.servers.clickhouse, pick.uniform(0.5, scene.plan.clickhouse_seconds + 3))


def cut_clickhouse(scene: Scene) -> Pause:
    """The connections to ClickHouse are cut, delayed, half-closed, refused, or get no answer."""
    yield from _trouble(scene, [scene.clickhouse], "clickhouse", silent_seconds=scene.plan.clickhouse_seconds + 0.5)


def cut_broker(scene: Scene) -> Pause:
    """The connections of emitter and sinks to the broker are disturbed in the same ways."""
    yield from _trouble(scene, scene.brokers.proxies, "broker", silent_seconds=2.5)


def swallow_answers(scene: Scene) -> Pause:
    """Statements take effect and their answers are lost."""
    pick = scene.chance("swallow")
    for _ in range(pick.choice((2, 3, 4))):
        statement, nth = pick.choice(tuple(_STATEMENTS)), pick.choice((1, 2, 3))
        if not (yield from _at_nth(scene, statement, nth, Conversation.swallow_answer)):
            return
        scene.note(f"answer lost: {statement}")


def kill_broker(scene: Scene) -> Pause:
    """SIGKILL and restart of the only broker while records are produced, fetched, or offsets committed."""
    yield from _kill_brokers(scene, lambda: scene.brokers.cluster.brokers[0])


def kill_leader(scene: Scene) -> Pause:
    """SIGKILL and restart of one broker of three: the leader of a partition."""
    pick = scene.chance("leader")
    brokers = scene.brokers.cluster.brokers
    yield from _kill_brokers(scene, lambda: brokers[scene.leader(pick.randrange(scene.plan.partitions)) - 1])


def kill_registry(scene: Scene) -> Pause:
    """The registry is away while a sink starts that has not fetched a schema yet."""
    pick = scene.chance("registry")
    server = scene.servers.registry
    yield from scene.pause(pick.uniform(0, 2))
    server.kill()
    scene.note("registry killed")
    for member in scene.fleet.members:
        scene.fleet.kill(member)
    yield from scene.pause(scene.plan.session_ms / 1000 + pick.uniform(1.5, 4))
    yield from start(scene, server)


def recreate_topic(scene: Scene) -> Pause:
    """The topic is deleted and created again: when all was read, in the middle, or while a sink is stopped."""
    pick = scene.chance("topic")
    moment = pick.choice(("drained", "amid", "asleep"))
    scene.fleet.allowed += ["Unknown topic", "UNKNOWN_TOPIC", "cannot describe topic", "no such topic", "out of range"]
    share = pick.uniform(0.1, 0.7)
    while scene.emitter.sent < share * scene.plan.events:
        yield
    scene.emitter.pause()
    while not scene.emitter.is_paused or not scene.ledger_ends():
        # Records that no sink has read are lost with the topic, so wait until some were read.
        yield from scene.pause(0.1)
    scene.note(f"topic recreated, {moment}")
    sleeper = None
    if moment == "drained":
        while not scene.is_drained():
            yield
    elif moment == "asleep" and scene.fleet.members:
        sleeper = scene.fleet.members[0]
        sleeper.process.send_signal(signal.SIGSTOP)
    yield from scene.recreate_topic()
    scene.emitter.resume()
    if sleeper is not None:
        yield from scene.pause(pick.uniform(0.2, scene.plan.session_ms / 1000 + 1))
        sleeper.process.send_signal(signal.SIGCONT)


def fill_disk(scene: Scene) -> Pause:
    """ClickHouse's disk is full for some seconds."""
    pick = scene.chance("disk")
    yield from scene.pause(pick.uniform(1.0, 2.5))
    ballast = Ballast(scene.servers.small_disk, leave=pick.choice((0, 0, 65_536, 1_048_576)))
    scene.note("disk full")
    try:
        for _ in scene.pause(pick.uniform(2, 4)):
            ballast.fill()
            yield
    finally:
        ballast.drop()


def rebalance(scene: Scene) -> Pause:
    """Sinks are started, stopped and killed."""
    pick = scene.chance("rebalance")
    yield from scene.pause(1)
    for _ in range(pick.choice((3, 4, 5))):
        fleet = scene.fleet
        if len(fleet.members) < 2 or (len(fleet.members) < 3 and pick.random() < 0.5):
            fleet.size = len(fleet.members) + 1
        else:
            fleet.size = len(fleet.members) - 1
            leaver = pick.choice(fleet.members)
            (fleet.kill if pick.random() < 0.2 else fleet.dismiss)(leaver)
        yield from scene.pause(pick.uniform(0.3, 1.5))
        if scene.is_idle:
            break
    scene.fleet.size = max(1, scene.fleet.size)


def skew_clocks(scene: Scene) -> Pause:
    """Sinks whose clocks are wrong by hours, each by another time; the load has wrong clocks of emitters."""
    pick = scene.chance("skew")
    scene.fleet.skews.extend(pick.uniform(-11, 11) * 3600 for _ in range(8))
    yield from scene.pause(pick.uniform(2, 4))
    for member in scene.fleet.members[:1]:
        scene.fleet.kill(member)
    yield


def deliver_again(scene: Scene) -> Pause:
    """More second deliveries; they are in the load."""
    scene.note("second deliveries")
    yield


FAULTS: dict[str, Fault] = {
    kinds.SINK_KILLED: kill_sink,
    kinds.SINK_STOPPED: stop_sink,
    kinds.SINK_STALLED: stall_sink,
    kinds.CLICKHOUSE_KILLED: kill_clickhouse,
    kinds.CLICKHOUSE_FROZEN: freeze_clickhouse,
    kinds.CLICKHOUSE_CUT: cut_clickhouse,
    kinds.ANSWERS_SWALLOWED: swallow_answers,
    kinds.BROKER_KILLED: kill_broker,
    kinds.LEADER_KILLED: kill_leader,
    kinds.BROKER_CUT: cut_broker,
    kinds.REGISTRY_AWAY: kill_registry,
    kinds.TOPIC_RECREATED: recreate_topic,
    kinds.DISK_FULL: fill_disk,
    kinds.REBALANCE: rebalance,
    kinds.CLOCK_SKEW: skew_clocks,
    kinds.SECOND_DELIVERIES: deliver_again,
}
"""By kind."""


def start(scene: Scene, server: Server) -> Pause:
    """Start a server again and wait until it answers; ended sinks are replaced meanwhile."""
    server.start()
    probes: deque[str | None] = deque()
    while True:
        thread = threading.Thread(target=lambda: probes.append(server.probe(1.0)), daemon=True)
        thread.start()
        while thread.is_alive():
            yield
        if probes.pop() is None:
            return
        yield from scene.pause(0.1)


def _kill_brokers(scene: Scene, choose: Callable[[], Server]) -> Pause:
    pick = scene.chance("kill-broker")
    for _ in range(pick.choice((1, 1, 2))):
        moment = pick.choice(("produce", "fetch", "commit"))
        if moment == "commit":
            trip = Trip(step="commit", when="before", call=pick.choice((1, 2)), act="meet")
            scene.fleet.trips.append([trip])
            for member in scene.fleet.members[:1]:
                scene.fleet.kill(member)
            yield from scene.until(scene.fleet.met, _WAIT_SECONDS)
        elif moment == "produce":
            yield from scene.pause(pick.uniform(0.2, 1.5))
        else:
            yield from scene.pause(pick.uniform(1.5, 4))
        broker = choose()
        with scene.outage():
            if pick.random() < 0.25:
                scene.note(f"broker frozen at {moment}")
                fault = _freeze(scene, broker, pick.uniform(1, 5))
            else:
                scene.note(f"broker killed at {moment}")
                fault = _kill_and_start(scene, broker, pick.uniform(0.1, 2))
            next(fault)
            if (meeting := scene.fleet.met()) is not None:
                meeting.unlink()
            yield from fault


def _is_awake(member: Member) -> bool:
    return not member.is_asleep


def _kill_and_start(scene: Scene, server: Server, seconds: float) -> Pause:
    server.kill()
    yield from scene.pause(seconds)
    yield from start(scene, server)


def _freeze(scene: Scene, server: Server, seconds: float) -> Pause:
    with scene.outage():
        os.kill(server.pid, signal.SIGSTOP)
        try:
            yield from scene.pause(seconds)
        finally:
            os.kill(server.pid, signal.SIGCONT)


def _trouble(scene: Scene, proxies: list[TcpProxy], name: str, *, silent_seconds: float) -> Pause:
    pick = scene.chance(f"trouble-{name}")
    yield from scene.pause(pick.uniform(0.5, 1.5))
    for _ in range(pick.choice((3, 4, 5))):
        trouble = pick.choice(("cut", "cut", "delay", "half-close", "refuse", "silent"))
        seconds = pick.uniform(0.2, 1.2)
        for proxy in proxies:
            if trouble == "cut":
                proxy.cut()
            elif trouble == "delay":
                proxy.delay(pick.uniform(0.02, 0.3))
            elif trouble == "half-close":
                proxy.half_close()
            elif trouble == "refuse":
                proxy.refuse()
                proxy.cut()
            else:
                proxy.swallow()
                seconds = silent_seconds
        scene.note(f"{name}: {trouble}")
        yield from scene.pause(seconds)
        for proxy in proxies:
            proxy.calm()
            if trouble == "silent":
                # Requests on these connections will never be answered.
                proxy.cut()
        yield from scene.pause(pick.uniform(0.1, 0.8))
        if scene.is_idle:
            return


def _at_nth(
    scene: Scene, statement: str, nth: int, call: Callable[[Conversation], None]
) -> Generator[None, None, bool]:
    """Wait for the n-th statement of a kind and call before ClickHouse gets it; false if it did not come."""
    was_called = threading.Event()
    counter = itertools.count(1)

    def count(conversation: Conversation) -> None:
        if next(counter) == nth:
            call(conversation)
            was_called.set()

    watch = scene.clickhouse.watch(_STATEMENTS[statement], count)
    yield from scene.until(was_called.is_set, _WAIT_SECONDS)
    scene.clickhouse.unwatch(watch)
    return was_called.is_set()
