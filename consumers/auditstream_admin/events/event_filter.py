"""The filter of the page. The URL contains its whole state: a filter is read from a URL and written to a URL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Self
from urllib.parse import urlencode

from auditstream_admin.events.time_range import TimeRange, read_range, read_zone
from auditstream_schemas.errors import FilterError
from auditstream_storage import EventConditions

MAX_TEXT = 512
"""Longest value, in characters; no id is longer."""
MAX_VALUES = 40
"""Largest number of values of a repeatable parameter."""

_SINGLE = ("actor", "target", "scope", "request")
_EXACT = frozenset({*_SINGLE, "meta"})
"""Parameters whose leading and trailing blanks are part of the value, because the values come from events."""
_SUCCESS = {"true": True, "false": False}
KEYS = frozenset({"range", "from", "to", "tz", "action", *_SINGLE, "success", "meta", "q"})
"""The parameters of a URL that belong to a filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter(EventConditions):
    """The conditions on the events of a list, and the IANA name of the zone in which times are shown."""

    time: TimeRange = field(default_factory=TimeRange)
    zone: str = "UTC"

    @classmethod
    def read(cls, parameters: Sequence[tuple[str, str]]) -> Self:
        """Read the parameters of a URL. Empty parameters, which a form sends, and unknown parameters are ignored.

        Raises:
            FilterError: A value is malformed; the error names the parameter.
        """
        given: dict[str, list[str]] = {}
        for key, value in parameters:
            if key in KEYS and value.strip():
                given.setdefault(key, []).append(_checked(key, value if key in _EXACT else value.strip()))
        for key, values in given.items():
            if len(values) > (MAX_VALUES if key in {"action", "meta"} else 1):
                raise FilterError(key, f"given {len(values)} times: give it less often")
        single = {key: values[0] for key, values in given.items()}
        success = single.get("success")
        if success is not None and success not in _SUCCESS:
            raise FilterError("success", f"{success[:40]!r} is neither true nor false")
        zone = single.get("tz")
        return cls(
            time=read_range(single.get("range"), single.get("from"), single.get("to"), read_zone(zone)),
            zone=zone or "UTC",
            actions=tuple(dict.fromkeys(given.get("action", []))),
            success=None if success is None else _SUCCESS[success],
            metadata=tuple(dict.fromkeys(_pair(text) for text in given.get("meta", []))),
            text=single.get("q"),
            **{name: single.get(name) for name in _SINGLE},
        )

    @property
    def display_zone(self) -> tzinfo:
        """The zone in which times are shown."""
        return read_zone(self.zone)

    def parameters(self) -> list[tuple[str, str]]:
        """The parameters from which `read` makes this filter, always in the same order."""
        parameters = self.time.parameters()
        parameters += [("action", glob) for glob in self.actions]
        parameters += [(name, getattr(self, name)) for name in _SINGLE if getattr(self, name) is not None]
        if self.success is not None:
            parameters.append(("success", "true" if self.success else "false"))
        parameters += [("meta", f"{key}={value}") for key, value in self.metadata]
        if self.text is not None:
            parameters.append(("q", self.text))
        return parameters if self.zone == "UTC" else [*parameters, ("tz", self.zone)]

    def query(self) -> str:
        """The same parameters as the query of a URL, without a question mark."""
        return urlencode(self.parameters())

    def with_(self, **changes: object) -> Self:
        """A copy with other values of some attributes."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def to_dict(self) -> Mapping[str, object]:
        """The conditions, for the audit trail."""
        parameters = self.with_(zone="UTC").parameters()
        conditions: dict[str, object] = dict(parameters)
        for key in {"action", "meta"} & conditions.keys():
            conditions[key] = [value for name, value in parameters if name == key]
        return conditions


def _checked(key: str, value: str) -> str:
    if len(value) > MAX_TEXT:
        raise FilterError(key, f"has {len(value)} characters: give {MAX_TEXT} or fewer")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise FilterError(key, "no event contains NUL or half a surrogate pair")
    return value


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise FilterError("meta", f"{text[:40]!r}: write key=value")
    return key, value
