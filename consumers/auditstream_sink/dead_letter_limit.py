"""The flood limit: rather stop than dead-letter a whole topic."""

from collections import Counter, deque
from collections.abc import Sequence

from auditstream_schemas.errors import SettingsError, SinkError
from auditstream_sink.batch import Refused
from auditstream_sink.metrics import Metrics
from auditstream_sink.settings import SinkSettings

_TOLD = frozenset({"unknown_schema", "incompatible_schema"})
"""Reasons whose error text speaks of the registry alone; other texts may quote the event."""


class DeadLetterLimit:
    """Adds up what was refused among the last records, batch by batch. Used by one thread at a time.

    A registry that serves a wrong schema makes every record a bad one at once; a few bad ones on a quiet topic
    are no flood. So the share is taken of the whole window, also while fewer records than that were handled.

    Args:
        settings: Share and window.
        metrics: Where the share is shown.

    Raises:
        SettingsError: Share or window makes no sense.
    """

    def __init__(self, settings: SinkSettings, metrics: Metrics) -> None:
        if not 0 <= settings.dead_letter_limit <= 1:
            raise SettingsError(
                f"AUDITSTREAM_DEAD_LETTER_LIMIT: was {settings.dead_letter_limit}; write 0 to 1, where 1 sets no limit"
            )
        if settings.dead_letter_window < 1:
            raise SettingsError(f"AUDITSTREAM_DEAD_LETTER_WINDOW: was {settings.dead_letter_window}; write 1 or more")
        self._share = settings.dead_letter_limit
        self._window = settings.dead_letter_window
        self._metrics = metrics
        self._handled = 0
        self._reasons: Counter[str] = Counter()
        self._batches: deque[tuple[int, Counter[str]]] = deque()

    def check(self, handled: int, letters: Sequence[Refused]) -> None:
        """Let a batch pass, or stop the sink before anything of it is dead-lettered or in the books.

        Args:
            handled: Records of the batch.
            letters: Those of them that are to be dead-lettered.

        Raises:
            SinkError: Too many of the last records were refused.
        """
        reasons = Counter(letter.reason for letter in letters)
        self._forget(handled)
        last, refused = self._handled + handled, self._reasons + reasons
        share = refused.total() / max(last, self._window)
        self._metrics.refused(share)
        if letters and share > self._share:
            raise SinkError(self._sentence(last, refused, letters))

    def passed(self, handled: int, letters: Sequence[Refused]) -> None:
        """The batch is in the books: it counts from now on."""
        reasons = Counter(letter.reason for letter in letters)
        self._batches.append((handled, reasons))
        self._handled += handled
        self._reasons.update(reasons)

    def _forget(self, handled: int) -> None:
        """Leave out what the window does not reach to any more, once so many more records are in it."""
        while self._batches and self._handled - self._batches[0][0] + handled >= self._window:
            gone, reasons = self._batches.popleft()
            self._handled -= gone
            self._reasons -= reasons

    def _sentence(self, last: int, refused: Counter[str], letters: Sequence[Refused]) -> str:
        [(reason, number)] = refused.most_common(1)
        of_reason = [letter for letter in letters if letter.reason == reason] or letters
        first = min(of_reason, key=lambda letter: (letter.record.partition, letter.record.offset))
        said = f" ({first.error})" if first.reason in _TOLD else ""
        return (
            f"stopped by the flood limit: {refused.total():,} of the last {last:,} records were refused, more than "
            f"{self._share:.0%} of {max(last, self._window):,}; most often for {reason}, {number:,} times, in this "
            f"batch first at partition {first.record.partition} offset {first.record.offset}{said}. This batch "
            "was neither dead-lettered nor accounted for: the next start reads it again. Repair the cause (registry, "
            "producer, clock) and start again; or, if these records are to be dead letters, raise "
            "AUDITSTREAM_DEAD_LETTER_LIMIT (1 sets no limit)"
        )
