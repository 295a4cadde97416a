"""When a batch is due."""

from dataclasses import dataclass

import pytest

from auditstream_sink import SinkSettings
from auditstream_sink.batch_builder import BatchBuilder
from auditstream_sink.clock import SystemClock
from auditstream_sink.writers import WriterSchema

SETTINGS = SinkSettings(flush_rows=100, flush_bytes=10_000, flush_seconds=1.0)


@dataclass
class HandClock(SystemClock):
    seconds: float = 0.0

    def monotonic(self) -> float:
        return self.seconds


def intake(rows: int, *, size: int = 1, age: float = 0.0) -> BatchBuilder:
    """One whose batch has so many records of so many bytes, the first of them so many seconds old."""

    def nobody(_schema_id: int) -> WriterSchema | None:
        return None

    clock = HandClock()
    found = BatchBuilder(SETTINGS, clock, nobody)
    for offset in range(rows):
        found.batch.count(Untimed(), 0, offset, size, expected=0, fencing_time=0)
    clock.seconds = age
    return found


class Untimed:
    def key(self) -> bytes:
        return b""

    def value(self) -> bytes:
        return b""

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, -1


@pytest.mark.parametrize(
    ("rows", "size", "age", "when_idle", "when_busy"),
    [
        (0, 1, 9.0, False, False),
        (24, 1, 0.9, False, False),
        (24, 1, 1.0, True, False),
        (25, 1, 0.0, True, False),
        (10, 250, 0.0, True, False),
        (99, 1, 9.0, True, False),
        (100, 1, 0.0, True, True),
        (10, 1000, 0.0, True, True),
    ],
)
def test_a_batch_is_due_when_full_or_sooner_if_there_is_nothing_else_to_do(
    *, rows: int, size: int, age: float, when_idle: bool, when_busy: bool
) -> None:
    found = intake(rows, size=size, age=age)
    assert found.is_due(is_busy=False) is when_idle
    assert found.is_due(is_busy=True) is when_busy
