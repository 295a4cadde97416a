"""What is to be exported: a range of time and a filter, and the SQL condition that they make."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditstream_schemas.errors import ExportError
from auditstream_schemas.timestamp import format_timestamp, parse_timestamp

_LIKE = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_", "*": "%", "?": "_"})
_WORDS = re.compile(r"[0-9A-Za-z\u0080-\U0010ffff]+")


def glob_to_like(pattern: str) -> str:
    """Turn a glob into the pattern of SQL's LIKE: ``*`` any run of characters, ``?`` one, all else literal."""
    return pattern.translate(_LIKE)


def words(text: str) -> list[str]:
    """The words that a text is searched by, in lower case, each once: what ClickHouse's tokens are.

    Of ASCII, only letters and digits are part of a word; everything else is.
    """
    return list(dict.fromkeys(word.lower() for word in _WORDS.findall(text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFilter:
    """Which events of the range are wanted; all conditions that are given must hold.

    Attributes:
        scopes: Ids of the only scopes whose events may be in it, whatever else is asked for; None for no such limit.
        actions: Globs of the action; an event matches if one of them does. None given: every action.
        scope: Id of the scope.
        actor: Id of the actor.
        target: Id of the target.
        success: Whether the action succeeded.
        request: Id of the request.
        metadata: Keys and values that the metadata must have.
        text: Words that the payload must have, in any order, whatever their case.

    Raises:
        ExportError: An id, a glob or the list of scopes is empty, or the text has no word.
    """

    scopes: tuple[str, ...] | None = None
    actions: tuple[str, ...] = ()
    scope: str | None = None
    actor: str | None = None
    target: str | None = None
    success: bool | None = None
    request: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    text: str | None = None

    def __post_init__(self) -> None:
        if self.scopes is not None and (not self.scopes or "" in self.scopes):
            raise ExportError("the list of scopes is empty, or an id in it: nobody may see that")
        if "" in self.actions:
            raise ExportError("the glob of an action is empty: leave it out for every action")
        for name in _ID_CONDITIONS:
            if getattr(self, name) == "":
                raise ExportError(f"the id of the {name} to filter by is empty: leave it out for every {name}")
        if self.text is not None and not words(self.text):
            raise ExportError(f"{self.text[:40]!r} has no word to look for: letters and digits make words")

    def where(self) -> tuple[str, dict[str, object]]:
        """The SQL condition and its server-side parameters; no value stands in the SQL itself."""
        conditions: list[str] = []
        parameters: dict[str, object] = {}
        if self.scopes is not None:
            conditions.append("scope_id IN {scopes:Array(String)}")
            parameters["scopes"] = list(self.scopes)
        if self.actions:
            names = [f"action_{number}" for number in range(len(self.actions))]
            conditions.append("(" + " OR ".join(f"action LIKE {{{name}:String}}" for name in names) + ")")
            parameters.update(zip(names, map(glob_to_like, self.actions), strict=True))
        for name, condition in _ID_CONDITIONS.items():
            value = getattr(self, name)
            if value is not None:
                conditions.append(condition)
                parameters[name] = value
        if self.success is not None:
            conditions.append("success = {success:Bool}")
            parameters["success"] = self.success
        for number, (key, value) in enumerate(self.metadata):
            conditions.append(f"metadata[{{meta_key_{number}:String}}] = {{meta_value_{number}:String}}")
            # A key that is not there has the value of an empty one.
            conditions.append(f"mapContainsKey(metadata, {{meta_key_{number}:String}})")
            parameters |= {f"meta_key_{number}": key, f"meta_value_{number}": value}
        for number, word in enumerate(words(self.text or "")):
            conditions.append(has_word(f"word_{number}", is_ascii=word.isascii()))
            parameters[f"word_{number}"] = word
        return " AND ".join(conditions) or "true", parameters

    def to_dict(self) -> Mapping[str, object]:
        """The conditions that are given, for the manifest."""
        found: dict[str, object] = {} if self.scopes is None else {"scopes": list(self.scopes)}
        if self.actions:
            found["action"] = list(self.actions)
        for name in (*_ID_CONDITIONS, "success", "text"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        if self.metadata:
            found["metadata"] = [list(pair) for pair in self.metadata]
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "ExportFilter":
        """The filter that `described` told."""
        plain = {name: value for name, value in found.items() if name not in {"action", "scopes", "metadata"}}
        return cls(
            scopes=tuple(found["scopes"]) if "scopes" in found else None,
            actions=tuple(found.get("action", ())),
            metadata=tuple((key, value) for key, value in found.get("metadata", ())),
            **plain,
        )


def has_word(name: str, *, is_ascii: bool) -> str:
    """The SQL condition that a payload has the word of a parameter.

    One that is not ASCII may be a part of a longer one, as where no blanks divide them.
    """
    if not is_ascii:
        return f"position(lowerUTF8(payload), {{{name}:String}}) > 0"
    # In the text of JSON the letter of an escape stands before the word that begins a line.
    spellings = [f"{{{name}:String}}", *(f"concat('{letter}', {{{name}:String}})" for letter in "ntrbf")]
    return "(" + " OR ".join(f"hasToken(lowerUTF8(payload), {spelling})" for spelling in spellings) + ")"


_ID_CONDITIONS = {
    "scope": "scope_id = {scope:String}",
    "actor": "actor.id = {actor:String}",
    "target": "target.id = {target:String}",
    "request": "request.id = {request:String}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """One export: a half-open range of ``occurred_at``, and a filter.

    Attributes:
        start: First instant of the range, nanoseconds since the epoch.
        end: First instant after the range, nanoseconds since the epoch.
        filter: Which events of the range.

    Raises:
        ExportError: The range is empty.
    """

    start: int
    end: int
    filter: ExportFilter = ExportFilter()

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ExportError(
                f"the range is empty: it begins at {format_timestamp(self.start)} and ends before "
                f"{format_timestamp(self.end)}; the end must be later"
            )

    def to_dict(self) -> dict[str, object]:
        """Range and filter, for the manifest."""
        return {
            "from": format_timestamp(self.start),
            "to": format_timestamp(self.end),
            "filter": self.filter.to_dict(),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "ExportRequest":
        """The request that `described` told, as a manifest holds it.

        Raises:
            ExportError: It does not hold one.
        """
        try:
            return cls(
                start=parse_timestamp(found["from"]),
                end=parse_timestamp(found["to"]),
                filter=ExportFilter.from_dict(found["filter"]),
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ExportError(f"the manifest does not tell range and filter: {error}") from error
