"""The request of an export: a range of time and a filter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditstream_schemas.errors import ExportError
from auditstream_schemas.timestamp import format_timestamp, parse_timestamp
from auditstream_storage import EventConditions, words

_IDS = ("scope", "actor", "target", "request")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFilter(EventConditions):
    """The conditions on the events of an export.

    Attributes:
        scopes: Ids of the scopes that the requester may see; events of others are never exported. None for no limit.

    Raises:
        ExportError: An id, a glob or the list of scopes is empty, or the text has no word.
    """

    scopes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.scopes is not None and (not self.scopes or "" in self.scopes):
            raise ExportError("the list of scopes is empty, or has an empty id: no events may be exported")
        if "" in self.actions:
            raise ExportError("the glob of an action is empty: leave it out for every action")
        for name in _IDS:
            if getattr(self, name) == "":
                raise ExportError(f"the id of the {name} to filter by is empty: leave it out for every {name}")
        if self.text is not None and not words(self.text):
            raise ExportError(f"{self.text[:40]!r} has no word to look for: letters and digits make words")

    def where(self) -> tuple[str, dict[str, object]]:
        """The SQL condition on the view ``events``, and its server-side parameters."""
        conditions, parameters = self.conditions(scope_column="scope_id")
        if self.scopes is not None:
            conditions.insert(0, "scope_id IN {scopes:Array(String)}")
            parameters["scopes"] = list(self.scopes)
        return " AND ".join(conditions) or "true", parameters

    def to_dict(self) -> Mapping[str, object]:
        """The given conditions, for the manifest."""
        conditions: dict[str, object] = {} if self.scopes is None else {"scopes": list(self.scopes)}
        if self.actions:
            conditions["action"] = list(self.actions)
        for name in (*_IDS, "success", "text"):
            if getattr(self, name) is not None:
                conditions[name] = getattr(self, name)
        if self.metadata:
            conditions["metadata"] = [list(pair) for pair in self.metadata]
        return conditions

    @classmethod
    def from_dict(cls, conditions: Mapping[str, Any]) -> "ExportFilter":
        """Read the conditions that `to_dict` wrote."""
        others = {name: value for name, value in conditions.items() if name not in {"action", "scopes", "metadata"}}
        return cls(
            scopes=tuple(conditions["scopes"]) if "scopes" in conditions else None,
            actions=tuple(conditions.get("action", ())),
            metadata=tuple((key, value) for key, value in conditions.get("metadata", ())),
            **others,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """One export: a half-open range of ``occurred_at``, and a filter.

    Attributes:
        start: First instant of the range, nanoseconds since the epoch.
        end: First instant after the range, nanoseconds since the epoch.
        filter: Conditions on the events of the range.

    Raises:
        ExportError: The range is empty.
    """

    start: int
    end: int
    filter: ExportFilter = ExportFilter()

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ExportError(
                f"the range is empty: its first instant is {format_timestamp(self.start)}, and it ends before "
                f"{format_timestamp(self.end)}; the end must be later"
            )

    def to_dict(self) -> dict[str, object]:
        """Range and filter, for the manifest."""
        return {"from": format_timestamp(self.start), "to": format_timestamp(self.end), "filter": self.filter.to_dict()}

    @classmethod
    def from_dict(cls, manifest: Mapping[str, Any]) -> "ExportRequest":
        """Read range and filter from a manifest or a request, where `to_dict` wrote them. Raises ExportError."""
        try:
            return cls(
                start=parse_timestamp(manifest["from"]),
                end=parse_timestamp(manifest["to"]),
                filter=ExportFilter.from_dict(manifest["filter"]),
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ExportError(f"range or filter is missing or malformed: {error}") from error
