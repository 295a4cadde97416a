"""The options of a run of the benchmarks."""

from dataclasses import dataclass
from pathlib import Path

from auditstream_sink import SinkSettings
from tests.benchmarks.load import BenchLoad, load

RESENT = 0.1
"""Share of the events that are sent twice, unless a group uses another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """The options of a run of the benchmarks.

    Attributes:
        events: Distinct events.
        rounds: Runs of a cheap candidate; the median counts.
        sizes: Millions of rows that the table holds, one after the other, in the group ``growth``.
        connector: Checkout of the ClickHouse Kafka Connect sink, for the group ``connect``.
        events_directory: Directory of the encoded events.
        scratch: Directory for everything else; removed at the end.
    """

    events: int
    rounds: int
    sizes: tuple[int, ...]
    connector: Path | None
    events_directory: Path
    scratch: Path

    @property
    def flush_rows(self) -> int:
        """Records of a batch: the sink's default, or a quarter of a small load, to show overlap."""
        return min(SinkSettings().flush_rows, max(1000, self.events // 4))

    def load(self, *, resent: float = RESENT, events: int | None = None, live: bool = False) -> BenchLoad:
        """The records."""
        return load(self.events_directory, events=events or self.events, resent=resent, live=live)
