"""What of the log is asked for. The URL is the state: a filter is read from it and written to it, nowhere else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Self
from urllib.parse import urlencode

from auditstream_admin.events.time_range import TimeRange, read_range, read_zone
from auditstream_schemas.errors import FilterError

MAX_TEXT = 512
"""Characters of a value; more is no id that anybody typed."""
MAX_VALUES = 40
"""Values of a field that may be given again."""

_SINGLE = ("actor", "target", "scope", "request")
_EXACT = frozenset({*_SINGLE, "meta"})
"""Blanks around these are part of them: they come from events."""
_SUCCESS = {"true": True, "false": False}
KEYS = frozenset({"range", "from", "to", "tz", "action", *_SINGLE, "success", "meta", "q"})
"""The parameters of a URL that make a filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are asked for; all conditions that are given must hold.

    Attributes:
        time: The range of ``occurred_at``.
        zone: IANA name of the zone in which times are shown; changes no result.
        actions: Globs of the action (``*`` any run of characters, ``?`` one); one of them must match.
        actor: Id of the actor.
        target: Id of the target.
        scope: Id of the scope.
        request: Id of the request.
        success: Whether the action succeeded.
        metadata: Keys and values that the metadata must have.
        text: Words that the payload must have, in any order, whatever their case.
    """

    time: TimeRange = field(default_factory=TimeRange)
    zone: str = "UTC"
    actions: tuple[str, ...] = ()
    actor: str | None = None
    target: str | None = None
    scope: str | None = None
    request: str | None = None
    success: bool | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    text: str | None = None

    @classmethod
    def read(cls, parameters: Sequence[tuple[str, str]]) -> Self:
        """Read the parameters of a URL. Empty ones, as a form sends them, are none; others' are passed over.

        Raises:
            FilterError: A value makes no sense; names the parameter.
        """
        given: dict[str, list[str]] = {}
        for key, value in parameters:
            if key in KEYS and value.strip():
                given.setdefault(key, []).append(_checked(key, value if key in _EXACT else value.strip()))
        for key, values in given.items():
            if len(values) > (MAX_VALUES if key in {"action", "meta"} else 1):
                raise FilterError(key, f"given {len(values)} times: too often")
        one: Callable[[str], str | None] = lambda key: given.get(key, [None])[0]  # noqa: E731
        success = one("success")
        if success is not None and success not in _SUCCESS:
            raise FilterError("success", f"{success[:40]!r} is neither true nor false")
        zone = read_zone(one("tz"))
        return cls(
            time=read_range(one("range"), one("from"), one("to"), zone),
            zone=one("tz") or "UTC",
            actions=tuple(dict.fromkeys(given.get("action", []))),
            success=None if success is None else _SUCCESS[success],
            metadata=tuple(dict.fromkeys(_pair(text) for text in given.get("meta", []))),
            text=one("q"),
            **{name: one(name) for name in _SINGLE},
        )

    @property
    def display_zone(self) -> tzinfo:
        """The zone in which times are shown."""
        return read_zone(self.zone)

    def parameters(self) -> list[tuple[str, str]]:
        """The parameters of the URL that `read` makes this filter from; the same filter gives the same."""
        found = self.time.parameters()
        found += [("action", glob) for glob in self.actions]
        found += [(name, getattr(self, name)) for name in _SINGLE if getattr(self, name) is not None]
        if self.success is not None:
            found.append(("success", "true" if self.success else "false"))
        found += [("meta", f"{key}={value}") for key, value in self.metadata]
        if self.text is not None:
            found.append(("q", self.text))
        return found if self.zone == "UTC" else [*found, ("tz", self.zone)]

    def query(self) -> str:
        """The same as the query of a URL, without a question mark."""
        return urlencode(self.parameters())

    def with_(self, **changes: object) -> Self:
        """The same but for what is given, by the names of the attributes."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def to_dict(self) -> Mapping[str, object]:
        """The conditions that are given, for the log of who looked at what."""
        given = self.with_(zone="UTC").parameters()
        found: dict[str, object] = dict(given)
        for key in {"action", "meta"} & found.keys():
            found[key] = [value for name, value in given if name == key]
        return found

    @property
    def is_open(self) -> bool:
        """Whether nothing but the time is asked for."""
        return self.with_(time=TimeRange(), zone="UTC") == type(self)()


def _checked(key: str, value: str) -> str:
    if len(value) > MAX_TEXT:
        raise FilterError(key, f"{len(value)} characters: {MAX_TEXT} at most")
    if "\0" in value or not _is_text(value):
        raise FilterError(key, "no text that an event can hold")
    return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise FilterError("meta", f"{text[:40]!r}: write key=value")
    return key, value
