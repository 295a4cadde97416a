"""The events for every candidate: those of the demo, made once and kept on disk as encoded bodies."""

import array
import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Producer
from tqdm import tqdm

from auditstream_ops.demo_events import NANOSECONDS, demo_events
from auditstream_producer import ProducerSettings
from auditstream_schemas.codec import encode_body
from auditstream_schemas.errors import OperationError

_ID = slice(1, 37)
"""The bytes of the id in a body: the order of the fields is part of the contract."""

_FLUSH_SECONDS = 120.0
_HOUR = 3600 * NANOSECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchLoad:
    """Records for a topic, in the order in which they are sent.

    Attributes:
        bodies: Avro bodies, without the header of the wire format.
        events: Distinct ids among them.
    """

    bodies: list[bytes]
    events: int


def load(directory: Path, *, events: int, resent: float, live: bool = False) -> BenchLoad:
    """A load of so many events, a share of which is sent once more at a random later place.

    The events are made once a day and kept in ``directory``: making a million takes some 25 seconds. A load of
    an earlier day would begin to reach beyond the retention.

    Args:
        directory: Directory of the encoded events.
        events: Number of events.
        resent: Share that is sent twice.
        live: All of the last hour, as a service sends them; else spread over a year, as the demo does.
    """
    once = list(_kept(directory, events, live=live))
    if not resent:
        return BenchLoad(bodies=once, events=events)
    pick = random.Random(events)
    behind: dict[int, list[bytes]] = {}
    for number in pick.sample(range(events), int(events * resent)):
        behind.setdefault(pick.randrange(number, events), []).append(once[number])
    bodies: list[bytes] = []
    for number, body in enumerate(once):
        bodies.append(body)
        bodies += behind.get(number, ())
    return BenchLoad(bodies=bodies, events=events)


def fill(bodies: list[bytes], settings: ProducerSettings, schema_id: int) -> None:
    """Put bodies on a topic as the SDK does, keyed by their id. Blocks until the broker has them.

    Raises:
        OperationError: The broker did not take all of them.
    """
    head = b"\x00" + schema_id.to_bytes(4)
    fill_with(((body[_ID], head + body) for body in bodies), settings)


def fill_with(records: Iterable[tuple[bytes, bytes]], settings: ProducerSettings) -> None:
    """Put records, keys and values, on a topic. Blocks until the broker has them.

    Raises:
        OperationError: The broker did not take all of them.
    """
    failed = 0

    def delivered(error: object, _message: object) -> None:
        nonlocal failed
        failed += error is not None

    producer = Producer(
        {
            **settings.librdkafka_client("bench"),
            **settings.librdkafka_producer(),
            "queue.buffering.max.messages": 500_000,
            "on_delivery": delivered,
        }
    )
    for number, (key, value) in enumerate(tqdm(records, desc=f"filling {settings.topic}", unit="", disable=_quiet())):
        while True:
            try:
                producer.produce(settings.topic, value=value, key=key)
            except BufferError:
                producer.poll(0.05)
            else:
                break
        if number % 1000 == 0:
            producer.poll(0)
    left = producer.flush(_FLUSH_SECONDS)
    if left or failed:
        raise OperationError(f"{left + failed} records did not reach topic {settings.topic}")


def _kept(directory: Path, events: int, *, live: bool) -> Iterator[bytes]:
    stem = directory / f"{datetime.now(UTC):%Y%m%d}-{events}{'-live' if live else ''}"
    sizes, bodies = stem.with_suffix(".sizes"), stem.with_suffix(".bodies")
    if not sizes.exists():
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.iterdir():
            if not old.name.startswith(f"{datetime.now(UTC):%Y%m%d}-"):
                old.unlink()
        _make(events, sizes, bodies, live=live)
    lengths = array.array("I", sizes.read_bytes())
    data, start = bodies.read_bytes(), 0
    for length in lengths:
        yield data[start : start + length]
        start += length


def _make(events: int, sizes: Path, bodies: Path, *, live: bool) -> None:
    lengths = array.array("I")
    now = time.time_ns()
    drawn = demo_events(events, now=now, seed=1)
    with bodies.open("wb") as file:
        for number, event in enumerate(tqdm(drawn, total=events, desc="making events", unit="", disable=_quiet())):
            moment = now - (events - number) * _HOUR // events
            body = encode_body(replace(event, occurred_at=moment) if live else event)
            lengths.append(len(body))
            file.write(body)
    # Written last: if this file exists, the other one is complete.
    part = sizes.with_suffix(".part")
    part.write_bytes(lengths.tobytes())
    part.replace(sizes)


def _quiet() -> bool:
    return not sys.stderr.isatty()
