"""The rate of the sink when no, one in a hundred, or every record is broken."""

import io
import json
import random
from collections.abc import Callable

import fastavro

from auditstream_schemas.codec import SCHEMA_JSON, decode_record
from tests.benchmarks.consumers import run_sink
from tests.benchmarks.figures import Figures
from tests.benchmarks.load import BenchLoad, fill
from tests.benchmarks.plan import BenchPlan
from tests.benchmarks.site import site

_SHARES = (0, 1, 100)
_ALL_POISON = 10
"""A tenth of the events is enough where all are broken: the question is whether the sink goes on."""


def poison(plan: BenchPlan, figures: Figures) -> None:
    """The sink without its dead-letter limit, on topics with broken records of four kinds."""
    with site("local", plan.scratch) as where:
        for share in _SHARES:
            events = plan.events // (_ALL_POISON if share == 100 else 2)
            valid = plan.load(resent=0.0, events=events)
            records = _poisoned(valid, share)
            broken = len(records.bodies) - records.events
            with where.topic() as topic, where.database() as database:
                fill(records.bodies, where.producer(topic), topic.schema_id)
                run = run_sink(
                    *(where, topic, database, len(records.bodies)),
                    events=records.events,
                    flush_rows=plan.flush_rows,
                    dead_letter_limit=1,
                )
            figures.add(f"sink.poison.{share}", run.rate, "records/s", f"{broken:,} of {run.records:,} are broken")
    figures.ratio("sink.poison.1.of_0", "sink.poison.1", "sink.poison.0")


def _poisoned(valid: BenchLoad, share: int) -> BenchLoad:
    pick = random.Random(share)
    bodies = list(valid.bodies)
    chosen = pick.sample(range(len(bodies)), len(bodies) * share // 100)
    kinds: tuple[Callable[[bytes], bytes], ...] = (
        lambda _body: pick.randbytes(200),
        lambda body: body[: len(body) // 2],
        lambda body: body[:1] + b"not-a-uuid-but-thirty-six-chars-long" + body[37:],
        _without_actor,
    )
    for number, index in enumerate(chosen):
        bodies[index] = kinds[number % len(kinds)](bodies[index])
    return BenchLoad(bodies=bodies, events=len(bodies) - len(chosen))


def _without_actor(body: bytes) -> bytes:
    record = decode_record(body)
    record["actor"]["id"] = ""
    written = io.BytesIO()
    fastavro.schemaless_writer(written, _SCHEMA, record)
    return written.getvalue()


def _plain_schema() -> dict[str, object]:
    """The event's schema with its times as integers, as `decode_record` gives them."""
    schema: dict[str, object] = json.loads(SCHEMA_JSON)
    fields = schema["fields"]
    assert isinstance(fields, list)
    for field in fields:
        if field["name"] in {"id", "occurred_at"}:
            field["type"] = field["type"]["type"]
    return dict(fastavro.parse_schema(schema))  # type: ignore[arg-type]


_SCHEMA = _plain_schema()
