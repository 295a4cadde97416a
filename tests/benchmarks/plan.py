"""What a run of the benchmarks was asked for."""

from dataclasses import dataclass
from pathlib import Path

from auditstream_sink import SinkSettings
from tests.benchmarks.load import BenchLoad, load

RESENT = 0.1
"""Share of the events that are sent twice, where a group does not say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What a run of the benchmarks was asked for.

    Attributes:
        events: Distinct events.
        rounds: How often a cheap candidate takes its turn; the median counts.
        sizes: Millions of rows that the table holds, one after the other, in the group ``growth``.
        connector: Checkout of the ClickHouse Kafka Connect sink, for the group ``connect``.
        kept: Directory of the events.
        scratch: Directory for everything else; removed at the end.
    """

    events: int
    rounds: int
    sizes: tuple[int, ...]
    connector: Path | None
    kept: Path
    scratch: Path

    @property
    def flush_rows(self) -> int:
        """Records of a batch: the sink's default, or a quarter of a small load, to show overlap."""
        return min(SinkSettings().flush_rows, max(1000, self.events // 4))

    def load(self, *, resent: float = RESENT, events: int | None = None, live: bool = False) -> BenchLoad:
        """The records."""
        return load(self.kept, events=events or self.events, resent=resent, live=live)
