"""Selects dead letters by name, reason, time, action and coordinates."""

import re
from dataclasses import dataclass
from functools import cached_property

from auditstream_ops.dead_letters.content import RecordDecoder
from auditstream_ops.dead_letters.dead_letter import DeadLetter
from auditstream_schemas.timestamp import from_datetime

_NAME = re.compile(r"[A-Za-z0-9._-]+\[\d+\]@\d+", re.ASCII)


def parse_name(text: str) -> str:
    """Check the name of a dead letter.

    Raises:
        ValueError: The text is not such a name.
    """
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r}: expected TOPIC[PARTITION]@OFFSET, as `auditstream dlq list` prints it")
    return text


# No slots: a cached property keeps its value in the instance's dict.
@dataclass(frozen=True, kw_only=True)
class DeadLetterFilter:
    """Conditions on dead letters; every one that is set must be true.

    Attributes:
        names: The dead letter has one of these names.
        reasons: It has one of these reasons.
        start: First instant at which it may have been written, nanoseconds since the epoch.
        end: First instant after the range, nanoseconds since the epoch.
        actions: Globs, one of which the action inside the record must match: ``*`` is any run of characters,
            ``?`` is one. A record that cannot be decoded matches none.
    """

    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None
    actions: tuple[str, ...] = ()
    topic_id: str | None = None
    partition: int | None = None
    offset: int | None = None

    def matches(self, dead_letter: DeadLetter, decoder: RecordDecoder) -> bool:
        """Whether all conditions are true. Only a condition on the action queries the registry (RegistryError)."""
        written = from_datetime(dead_letter.written_at)
        return (
            (not self.names or dead_letter.name in self.names)
            and (not self.reasons or dead_letter.reason in self.reasons)
            and (self.start is None or written >= self.start)
            and (self.end is None or written < self.end)
            and (self.topic_id is None or dead_letter.topic_id == self.topic_id)
            and (self.partition is None or dead_letter.partition == self.partition)
            and (self.offset is None or dead_letter.offset == self.offset)
            and (not self.actions or self._has_action(dead_letter, decoder))
        )

    def _has_action(self, dead_letter: DeadLetter, decoder: RecordDecoder) -> bool:
        action = decoder.action(dead_letter)
        return action is not None and self._action_pattern.fullmatch(action) is not None

    @cached_property
    def _action_pattern(self) -> re.Pattern[str]:
        globs = (re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".") for glob in self.actions)
        return re.compile("|".join(globs), re.DOTALL)
