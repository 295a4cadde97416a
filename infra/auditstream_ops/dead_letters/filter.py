"""Which letters are meant."""

import re
from dataclasses import dataclass
from functools import cached_property

from auditstream_ops.dead_letters.content import RecordDecoder
from auditstream_ops.dead_letters.dead_letter import DeadLetter
from auditstream_schemas.timestamp import from_datetime

_NAME = re.compile(r"[A-Za-z0-9._-]+\[\d+\]@\d+", re.ASCII)


def parse_name(text: str) -> str:
    """Check the name of a letter.

    Raises:
        ValueError: The text is none.
    """
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r}: expected TOPIC[PARTITION]@OFFSET, as `auditstream dlq list` prints it")
    return text


# No slots: a cached property keeps its value in the instance's dict.
@dataclass(frozen=True, kw_only=True)
class LetterFilter:
    """Conditions on letters; all that are given must hold.

    Attributes:
        names: Names of letters, one of which it must have.
        reasons: Reasons, one of which it must have.
        start: First instant at which it may have been written, nanoseconds since the epoch.
        end: First instant after those, likewise.
        actions: Globs, one of which the action inside the record must match: ``*`` is any run of characters,
            ``?`` is one. A record that cannot be decoded matches none.
        topic_id: Id of the topic that the record came from.
        partition: Partition that the record came from.
        offset: Offset that the record had.
    """

    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None
    actions: tuple[str, ...] = ()
    topic_id: str | None = None
    partition: int | None = None
    offset: int | None = None

    def matches(self, letter: DeadLetter, decoder: RecordDecoder) -> bool:
        """Whether the letter is meant. Asks the registry only if there is a condition on the action.

        Raises:
            RegistryError: The registry is away or refuses.
        """
        written = from_datetime(letter.written_at)
        return (
            (not self.names or letter.name in self.names)
            and (not self.reasons or letter.reason in self.reasons)
            and (self.start is None or written >= self.start)
            and (self.end is None or written < self.end)
            and (self.topic_id is None or letter.topic_id == self.topic_id)
            and (self.partition is None or letter.partition == self.partition)
            and (self.offset is None or letter.offset == self.offset)
            and (not self.actions or self._has_action(letter, decoder))
        )

    def _has_action(self, letter: DeadLetter, decoder: RecordDecoder) -> bool:
        action = decoder.action(letter)
        return action is not None and self._action_pattern.fullmatch(action) is not None

    @cached_property
    def _action_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_pattern, self.actions)), re.DOTALL)


def _pattern(glob: str) -> str:
    return re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".")
