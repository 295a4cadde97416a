"""The faults: each a generator that strikes a scene, and yields whenever it waits.

One that has nothing left to strike (all is sent and in the books) ends early. What a fault breaks it mends.
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

Strike = Callable[[Scene], Pause]

_PATIENCE = 20.0
_INSERTS: tuple[tuple[str, When], ...] = (("insert", "amid"),) * 45 + (("insert", "before"),) * 10
_STATEMENTS = {
    "stage": rb"INSERT[ +]INTO[ +]\S*stage_",
    "classify": rb"INSERT INTO \S*status_",
    "insert": rb"INSERT INTO \S*event_log",
    "copies": rb"INSERT INTO \S*copies",
    "ledger": rb"INSERT INTO \S*ledger",
}


def kill_sink(scene: Scene) -> Pause:
    """SIGKILL of the sink before, amid and after its steps: three times, all moments in turn over the seeds."""
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
    """SIGSTOP past the session's time-out, another sink takes over, and SIGCONT while that one inserts."""
    pick = scene.chance("stop-sink")
    step, when = pick.choice((*_INSERTS, *MOMENTS))
    trip = Trip(step=step, when=when, call=pick.choice((1, 2, 3)), act="stop", seconds=pick.uniform(0, 0.03))
    waiting = [trip]
    scene.fleet.trips.append(waiting)
    # Sinks that are to be killed may come first.
    yield from scene.until(lambda: all(each is not waiting for each in scene.fleet.trips), 3 * _PATIENCE)
    yield from scene.until(scene.fleet.asleep, _PATIENCE)
    for sleeper in scene.fleet.asleep():
        scene.note(f"asleep: {trip}")
        how: When | None = pick.choice(("amid", "before", "after", None))
        wake = (
            []
            if how is None
            else [Trip(step="insert", when=how, call=pick.choice((1, 2)), act="wake", pid=sleeper.pid, seconds=0.01)]
        )
        scene.fleet.trips.appendleft(wake)
        scene.fleet.wanted += 1
        # Its session must be over, and another must have had the time to be given its partitions.
        shortest = scene.plan.session_ms / 1000 + 1.5
        yield from scene.pause(shortest)
        yield from scene.until(partial(_is_awake, sleeper), pick.uniform(1, 6))
        if sleeper.is_asleep:
            sleeper.process.send_signal(signal.SIGCONT)
        yield from scene.pause(pick.uniform(0.5, 2))
        scene.fleet.wanted -= 1


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
    """ClickHouse stands still under a statement, past the sink's time-out, and then does what it was told."""
    pick = scene.chance("freeze-clickhouse")
    for _ in range(pick.choice((1, 2))):
        statement = pick.choice(("insert", "insert", "stage", "classify", "ledger"))
        if not (yield from _at_nth(scene, statement, pick.choice((1, 2, 3)), lambda _: None)):
            return
        yield from scene.pause(pick.uniform(0, 0.03))
        scene.note(f"ClickHouse frozen at {statement}")
        yield from _freeze(scene, scene.servers.clickhouse, pick.uniform(0.5, scene.plan.clickhouse_seconds + 3))


def cut_clickhouse(scene: Scene) -> Pause:
    """The connections to ClickHouse are cut, delayed, half-closed, refused, or go deaf."""
    yield from _trouble(scene, [scene.clickhouse], "clickhouse", deaf=scene.plan.clickhouse_seconds + 0.5)


def cut_broker(scene: Scene) -> Pause:
    """The same to the connections of emitter and sinks to the broker."""
    yield from _trouble(scene, scene.brokers.proxies, "broker", deaf=2.5)


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
    """SIGKILL and restart of one broker of three, the leader of a partition as a rule."""
    pick = scene.chance("leader")
    brokers = scene.brokers.cluster.brokers
    yield from _kill_brokers(scene, lambda: brokers[scene.leader(pick.randrange(scene.plan.partitions)) - 1])


def take_registry_away(scene: Scene) -> Pause:
    """The registry is away while a sink that knows no schema yet starts."""
    pick = scene.chance("registry")
    server = scene.servers.registry
    yield from scene.pause(pick.uniform(0, 2))
    server.kill()
    scene.note("registry killed")
    for member in scene.fleet.members:
        scene.fleet.kill(member)
    yield from scene.pause(scene.plan.session_ms / 1000 + pick.uniform(1.5, 4))
    yield from start(scene, server)


def make_topic_anew(scene: Scene) -> Pause:
    """The topic is deleted and made anew: when all was read, in the middle, or under a sleeping sink."""
    pick = scene.chance("topic")
    how = pick.choice(("drained", "amid", "asleep"))
    scene.fleet.allowed += ["Unknown topic", "UNKNOWN_TOPIC", "cannot describe topic", "no such topic", "out of range"]
    share = pick.uniform(0.1, 0.7)
    while scene.emitter.sent < share * scene.plan.events:
        yield
    scene.emitter.pause()
    while not scene.emitter.is_paused or not scene.books():
        # What no sink has read dies with the topic; some is to be read.
        yield from scene.pause(0.1)
    scene.note(f"topic anew, {how}")
    sleeper = None
    if how == "drained":
        while not scene.is_drained():
            yield
    elif how == "asleep" and scene.fleet.members:
        sleeper = scene.fleet.members[0]
        sleeper.process.send_signal(signal.SIGSTOP)
    yield from scene.make_topic_anew()
    scene.emitter.resume()
    if sleeper is not None:
        yield from scene.pause(pick.uniform(0.2, scene.plan.session_ms / 1000 + 1))
        sleeper.process.send_signal(signal.SIGCONT)


def fill_disk(scene: Scene) -> Pause:
    """ClickHouse's disk runs full, stays so for a while, and is given room again."""
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
    """Sinks come and go, by the book and by SIGKILL."""
    pick = scene.chance("rebalance")
    yield from scene.pause(1)
    for _ in range(pick.choice((3, 4, 5))):
        fleet = scene.fleet
        if len(fleet.members) < 2 or (len(fleet.members) < 3 and pick.random() < 0.5):
            fleet.wanted = len(fleet.members) + 1
        else:
            fleet.wanted = len(fleet.members) - 1
            leaver = pick.choice(fleet.members)
            (fleet.kill if pick.random() < 0.2 else fleet.dismiss)(leaver)
        yield from scene.pause(pick.uniform(0.3, 1.5))
        if scene.is_idle:
            break
    scene.fleet.wanted = max(1, scene.fleet.wanted)


def skew_clocks(scene: Scene) -> Pause:
    """Sinks whose clocks are hours off, each other than the last; the emitters' are in the load."""
    pick = scene.chance("skew")
    scene.fleet.skews.extend(pick.uniform(-11, 11) * 3600 for _ in range(8))
    yield from scene.pause(pick.uniform(2, 4))
    for member in scene.fleet.members[:1]:
        scene.fleet.kill(member)
    yield


def deliver_again(scene: Scene) -> Pause:
    """Second deliveries everywhere: they are in the load."""
    scene.note("second deliveries")
    yield


STRIKES: dict[str, Strike] = {
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
    kinds.REGISTRY_AWAY: take_registry_away,
    kinds.TOPIC_ANEW: make_topic_anew,
    kinds.DISK_FULL: fill_disk,
    kinds.REBALANCE: rebalance,
    kinds.CLOCK_SKEW: skew_clocks,
    kinds.SECOND_DELIVERIES: deliver_again,
}
"""By kind."""


def start(scene: Scene, server: Server) -> Pause:
    """Start a server again and wait until it answers; sinks are watched meanwhile."""
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
            yield from scene.until(scene.fleet.met, _PATIENCE)
        elif moment == "produce":
            yield from scene.pause(pick.uniform(0.2, 1.5))
        else:
            yield from scene.pause(pick.uniform(1.5, 4))
        broker = choose()
        with scene.outage():
            if pick.random() < 0.25:
                scene.note(f"broker frozen at {moment}")
                strike = _freeze(scene, broker, pick.uniform(1, 5))
            else:
                scene.note(f"broker killed at {moment}")
                strike = _kill_and_start(scene, broker, pick.uniform(0.1, 2))
            next(strike)
            if (meeting := scene.fleet.met()) is not None:
                meeting.unlink()
            yield from strike


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


def _trouble(scene: Scene, proxies: list[TcpProxy], name: str, *, deaf: float) -> Pause:
    pick = scene.chance(f"trouble-{name}")
    yield from scene.pause(pick.uniform(0.5, 1.5))
    for _ in range(pick.choice((3, 4, 5))):
        trouble = pick.choice(("cut", "cut", "delay", "half-close", "refuse", "deaf"))
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
                seconds = deaf
        scene.note(f"{name}: {trouble}")
        yield from scene.pause(seconds)
        for proxy in proxies:
            proxy.calm()
            if trouble == "deaf":
                # What was said meanwhile got no answer and never will.
                proxy.cut()
        yield from scene.pause(pick.uniform(0.1, 0.8))
        if scene.is_idle:
            return


def _at_nth(
    scene: Scene, statement: str, nth: int, call: Callable[[Conversation], None]
) -> Generator[None, None, bool]:
    """Wait for the n-th statement of a kind and call before ClickHouse hears it; false if it did not come."""
    told = threading.Event()
    counter = itertools.count(1)

    def count(conversation: Conversation) -> None:
        if next(counter) == nth:
            call(conversation)
            told.set()

    watch = scene.clickhouse.watch(_STATEMENTS[statement], count)
    yield from scene.until(told.is_set, _PATIENCE)
    scene.clickhouse.unwatch(watch)
    return told.is_set()
