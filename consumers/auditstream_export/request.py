"""What is to be exported: a range of time and a filter, and the SQL condition that they make."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditstream_schemas.errors import ExportError
from auditstream_schemas.timestamp import format_timestamp, parse_timestamp

_LIKE = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_", "*": "%", "?": "_"})


def glob_to_like(pattern: str) -> str:
    """Turn a glob into the pattern of SQL's LIKE: ``*`` any run of characters, ``?`` one, all else literal."""
    return pattern.translate(_LIKE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFilter:
    """Which events of the range are wanted; all conditions that are given must hold.

    Attributes:
        actions: Globs of the action; an event matches if one of them does. None given: every action.
        scope: Id of the scope.
        actor: Id of the actor.
        target: Id of the target.
        success: Whether the action succeeded.
        request: Id of the request.

    Raises:
        ExportError: An id or a glob is empty.
    """

    actions: tuple[str, ...] = ()
    scope: str | None = None
    actor: str | None = None
    target: str | None = None
    success: bool | None = None
    request: str | None = None

    def __post_init__(self) -> None:
        if "" in self.actions:
            raise ExportError("the glob of an action is empty: leave it out for every action")
        for name in _ID_CONDITIONS:
            if getattr(self, name) == "":
                raise ExportError(f"the id of the {name} to filter by is empty: leave it out for every {name}")

    def where(self) -> tuple[str, dict[str, object]]:
        """The SQL condition and its server-side parameters; no value stands in the SQL itself."""
        conditions: list[str] = []
        parameters: dict[str, object] = {}
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
        return " AND ".join(conditions) or "true", parameters

    def described(self) -> Mapping[str, object]:
        """The conditions that are given, for the manifest."""
        found: dict[str, object] = {"action": list(self.actions)} if self.actions else {}
        for name in (*_ID_CONDITIONS, "success"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        return found

    @classmethod
    def from_described(cls, found: Mapping[str, Any]) -> "ExportFilter":
        """The filter that `described` told."""
        return cls(
            actions=tuple(found.get("action", ())), **{name: value for name, value in found.items() if name != "action"}
        )


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

    def described(self) -> dict[str, object]:
        """Range and filter, for the manifest."""
        return {
            "from": format_timestamp(self.start),
            "to": format_timestamp(self.end),
            "filter": self.filter.described(),
        }

    @classmethod
    def from_described(cls, found: Mapping[str, Any]) -> "ExportRequest":
        """The request that `described` told, as a manifest holds it.

        Raises:
            ExportError: It does not hold one.
        """
        try:
            return cls(
                start=parse_timestamp(found["from"]),
                end=parse_timestamp(found["to"]),
                filter=ExportFilter.from_described(found["filter"]),
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ExportError(f"the manifest does not tell range and filter: {error}") from error
