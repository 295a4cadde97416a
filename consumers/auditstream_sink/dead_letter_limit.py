"""The dead-letter limit: stops the sink before it makes dead letters of a whole topic."""

from collections import Counter, deque
from collections.abc import Sequence

from auditstream_schemas.errors import SettingsError, SinkError
from auditstream_sink.batch import RefusedRecord
from auditstream_sink.metrics import Metrics
from auditstream_sink.settings import SinkSettings

_WITHOUT_PAYLOAD = frozenset({"unknown_schema", "incompatible_schema"})
"""Reasons whose error text is about the registry alone; other texts may quote the event."""


class DeadLetterLimit:
    """Adds up the refused records among the last ones, batch by batch. Used by one thread at a time.

    The share is that of the whole window, even while fewer records were read: so a few refused records on a quiet
    topic do not stop the sink. A registry that serves a wrong schema does, because every record is refused.

    Args:
        settings: Limit and window.
        metrics: Shows the share.

    Raises:
        SettingsError: Limit or window is out of range.
    """

    def __init__(self, settings: SinkSettings, metrics: Metrics) -> None:
        if not 0 <= settings.dead_letter_limit <= 1:
            raise SettingsError(
                f"AUDITSTREAM_DEAD_LETTER_LIMIT: was {settings.dead_letter_limit}; write 0 to 1, where 1 sets no limit"
            )
        if settings.dead_letter_window < 1:
            raise SettingsError(f"AUDITSTREAM_DEAD_LETTER_WINDOW: was {settings.dead_letter_window}; write 1 or more")
        self._limit = settings.dead_letter_limit
        self._window = settings.dead_letter_window
        self._metrics = metrics
        self._records = 0
        self._reasons: Counter[str] = Counter()
        self._batches: deque[tuple[int, Counter[str]]] = deque()

    def check(self, records: int, refused: Sequence[RefusedRecord]) -> None:
        """Check a batch before any of its records is dead-lettered or in the ledger.

        Args:
            records: Number of records of the batch.
            refused: Those of them that would become dead letters.

        Raises:
            SinkError: Too many of the last records were refused.
        """
        # A batch leaves the window once that many newer records are in it.
        while self._batches and self._records - self._batches[0][0] + records >= self._window:
            old_records, old_reasons = self._batches.popleft()
            self._records -= old_records
            self._reasons -= old_reasons
        last = self._records + records
        reasons = self._reasons + Counter(record.reason for record in refused)
        share = reasons.total() / max(last, self._window)
        self._metrics.dead_letter_share(share)
        if refused and share > self._limit:
            raise SinkError(self._message(last, reasons, refused))

    def add(self, records: int, refused: Sequence[RefusedRecord]) -> None:
        """Count a batch, now that it is in the ledger."""
        reasons = Counter(record.reason for record in refused)
        self._batches.append((records, reasons))
        self._records += records
        self._reasons += reasons

    def _message(self, last: int, reasons: Counter[str], refused: Sequence[RefusedRecord]) -> str:
        [(reason, number)] = reasons.most_common(1)
        of_reason = [record for record in refused if record.reason == reason] or refused
        first = min(of_reason, key=lambda candidate: (candidate.record.partition, candidate.record.offset))
        error = f" ({first.error})" if first.reason in _WITHOUT_PAYLOAD else ""
        return (
            f"stopped by the dead-letter limit: {reasons.total():,} of the last {last:,} records were refused, more "
            f"than {self._limit:.0%} of {max(last, self._window):,}. The most frequent reason is {reason}, {number:,} "
            f"times; in this batch first at partition {first.record.partition} offset {first.record.offset}{error}. "
            "No record of this batch was dead-lettered or is in the ledger: the next start reads it again. Repair the "
            "cause (registry, producer, clock) and start again; or, if these records are to be dead letters, raise "
            "AUDITSTREAM_DEAD_LETTER_LIMIT (1 sets no limit)"
        )
