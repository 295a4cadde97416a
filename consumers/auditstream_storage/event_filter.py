"""The SQL that selects events: by conditions, or by the key of an id. No value stands in the SQL itself."""

import re
from dataclasses import dataclass

TIME_RANGE = (
    "occurred_at >= fromUnixTimestamp64Nano({start:Int64}, 'UTC')"
    " AND occurred_at < fromUnixTimestamp64Nano({end:Int64}, 'UTC')"
)
"""The condition of a half-open range of time. Parameters: start, end, nanoseconds since the epoch."""

_LIKE = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_", "*": "%", "?": "_"})
_WORDS = re.compile(r"[0-9A-Za-z\u0080-\U0010ffff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventConditions:
    """Conditions on events; an event matches if it meets all that are given.

    Attributes:
        actions: Globs of the action (``*`` any run of characters, ``?`` one), one of which must match. None given:
            every action.
        scope: Id of the scope.
        actor: Id of the actor.
        target: Id of the target.
        success: Whether the action succeeded.
        request: Id of the request.
        metadata: Keys and values that the metadata must have.
        text: Words that the payload must have, in any order and case.
    """

    actions: tuple[str, ...] = ()
    scope: str | None = None
    actor: str | None = None
    target: str | None = None
    success: bool | None = None
    request: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    text: str | None = None

    def conditions(self, *, scope_column: str) -> tuple[list[str], dict[str, object]]:
        """The SQL conditions and their server-side parameters.

        ``scope_column`` is ``scope.id`` for the table ``event_log``, which has it in its primary key, and ``scope_id``
        for the view ``events``.
        """
        conditions: list[str] = []
        parameters: dict[str, object] = {}
        if self.actions:
            names = [f"action_{number}" for number in range(len(self.actions))]
            conditions.append("(" + " OR ".join(f"action LIKE {{{name}:String}}" for name in names) + ")")
            parameters.update(zip(names, map(glob_to_like, self.actions), strict=True))
        columns = {"scope": scope_column, "actor": "actor.id", "target": "target.id", "request": "request.id"}
        for name, column in columns.items():
            if (id := getattr(self, name)) is not None:
                conditions.append(f"{column} = {{{name}:String}}")
                parameters[name] = id
        if self.success is not None:
            conditions.append("success = {success:Bool}")
            parameters["success"] = self.success
        for number, (key, value) in enumerate(self.metadata):
            conditions.append(f"metadata[{{meta_key_{number}:String}}] = {{meta_value_{number}:String}}")
            # A missing key has the same value as a key with an empty one.
            conditions.append(f"mapContainsKey(metadata, {{meta_key_{number}:String}})")
            parameters |= {f"meta_key_{number}": key, f"meta_value_{number}": value}
        for number, word in enumerate(words(self.text or "")):
            conditions.append(_has_word(f"word_{number}", is_ascii=word.isascii()))
            parameters[f"word_{number}"] = word
        return conditions, parameters


def glob_to_like(pattern: str) -> str:
    """Turn a glob into the pattern of SQL's LIKE: ``*`` any run of characters, ``?`` one, all else literal."""
    return pattern.translate(_LIKE)


def words(text: str) -> list[str]:
    """The words by which a text is searched, in lower case, each once. They are ClickHouse's tokens.

    Letters, digits and all characters outside ASCII are part of a word; other ASCII characters separate words.
    """
    return list(dict.fromkeys(word.lower() for word in _WORDS.findall(text)))


def id_key(uuid: str) -> str:
    """The SQL of an id's key, a UInt64: the same expression as the column ``id_key`` of the table ``event_log``.

    For a UUIDv7 (RFC 9562, section 5.7) the key is the milliseconds followed by the last byte, which every generator
    fills at random. So the keys of a batch lie together, and take a third of the space of the ids. For any other id
    the key is a hash. Different ids may have the same key: a look-up must compare the ids, too. ``uuid`` is SQL of
    type UUID.
    """
    number = f"toUInt128({uuid})"
    of_v7 = f"toUInt64(bitShiftRight({number}, 80)) * 256 + toUInt64(bitAnd({number}, 255))"
    return f"if(bitAnd(bitShiftRight({number}, 76), 15) = 7, {of_v7}, cityHash64({uuid}))"


def _has_word(name: str, *, is_ascii: bool) -> str:
    """The SQL condition that a payload has the word of a parameter.

    A word that is not ASCII may be a part of a longer one: some languages have no blanks between words.
    """
    if not is_ascii:
        return f"position(lowerUTF8(payload), {{{name}:String}}) > 0"
    # In JSON text, the letter of an escape stands before the word that begins a line.
    spellings = [f"{{{name}:String}}", *(f"concat('{letter}', {{{name}:String}})" for letter in "ntrbf")]
    return "(" + " OR ".join(f"hasToken(lowerUTF8(payload), {spelling})" for spelling in spellings) + ")"
