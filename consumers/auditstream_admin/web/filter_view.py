"""The filter on the page: removable chips, the tree of actions, and links that change one condition."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Literal

from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.time_range import DEFAULT_PRESET, TimeRange, local

PRESET_NAMES = {
    "15m": "Last 15 minutes",
    "1h": "Last hour",
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "90d": "Last 90 days",
    "12mo": "Last 12 months",
}
"""Labels of the presets in `time_range`."""

ZONES = (
    "UTC", "America/Los_Angeles", "America/Denver", "America/Chicago", "America/New_York", "America/Sao_Paulo",
    "Europe/London", "Europe/Berlin", "Europe/Helsinki", "Africa/Johannesburg", "Asia/Dubai", "Asia/Kolkata",
    "Asia/Singapore", "Asia/Tokyo", "Australia/Sydney", "Pacific/Auckland",
)  # fmt: skip
"""Time zones in the menu; the browser adds its own zone, and the URL accepts every zone."""

_LABELS = {"actor": "Actor", "target": "Target", "scope": "Scope", "request": "Request"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One active condition; ``without`` is the URL of the list without it."""

    label: str
    value: str
    without: str


@dataclass(slots=True, kw_only=True)
class ActionBranch:
    """A node in the tree of actions.

    Attributes:
        name: Last word of the action or of the common prefix.
        glob: Pattern that its checkbox adds to the filter: the action, or ``prefix.*`` for the whole branch.
        description: Description in the catalog; empty for a branch.
    """

    name: str
    glob: str
    description: str = ""
    is_checked: bool = False
    branches: dict[str, "ActionBranch"] = field(default_factory=dict)

    @property
    def has_checked(self) -> bool:
        """Whether this node or one below it is checked."""
        return self.is_checked or any(branch.has_checked for branch in self.branches.values())


def list_url(event_filter: EventFilter, **changes: object) -> str:
    """The URL of the list with some attributes of the filter changed."""
    query = event_filter.with_(**changes).query()
    return f"/events?{query}" if query else "/events"


def chips(event_filter: EventFilter, zone: tzinfo) -> list[Chip]:
    """The active conditions, in the order of the URL."""
    conditions: list[tuple[str, str, dict[str, object]]] = []
    time = event_filter.time
    if time.start is not None or time.preset != DEFAULT_PRESET:
        conditions.append(("Time", range_name(time, zone), {"time": TimeRange()}))
    for glob in event_filter.actions:
        others = tuple(other for other in event_filter.actions if other != glob)
        conditions.append(("Action", glob, {"actions": others}))
    for name, label in _LABELS.items():
        value = getattr(event_filter, name)
        if value is not None:
            conditions.append((label, value, {name: None}))
    if event_filter.success is not None:
        conditions.append(("Outcome", "Succeeded" if event_filter.success else "Failed", {"success": None}))
    for pair in event_filter.metadata:
        rest = tuple(other for other in event_filter.metadata if other != pair)
        conditions.append((*pair, {"metadata": rest}))
    if event_filter.text is not None:
        conditions.append(("Payload contains", event_filter.text, {"text": None}))
    return [
        Chip(label=label, value=value, without=list_url(event_filter, **changes))
        for label, value, changes in conditions
    ]


def range_name(time: TimeRange, zone: tzinfo) -> str:
    """A time range as text."""
    if time.start is None:
        return PRESET_NAMES[time.preset]
    first = _short(time.start, zone)
    if time.end is None:
        return f"since {first}"
    last = _short(time.end, zone)
    return f"{first} – {last[11:] if last[:10] == first[:10] else last}"  # noqa: RUF001 - a range


def form_time(nanoseconds: int, zone: tzinfo, *, edge: Literal["start", "end"]) -> str:
    """An instant as the value of a form field, to the millisecond; rounded so that the range never gets smaller."""
    milliseconds = nanoseconds // 1_000_000 if edge == "start" else -(-nanoseconds // 1_000_000)
    moment = local(milliseconds * 1_000_000, zone)
    fraction = f".{milliseconds % 1000:03d}" if milliseconds % 1000 else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}"


def action_tree(names: Iterable[tuple[str, str]], checked: Iterable[str]) -> tuple[ActionBranch, list[str]]:
    """The root of the tree of actions, with one level per word; and the checked patterns that are not nodes of it.

    ``names`` are actions with their descriptions.
    """
    patterns = list(checked)
    root = ActionBranch(name="", glob="*")
    globs = set()
    for action, description in names:
        *folders, last = action.split(".")
        node = root
        for depth, word in enumerate(folders, 1):
            glob = ".".join(folders[:depth]) + ".*"
            globs.add(glob)
            node = node.branches.setdefault(word, ActionBranch(name=word, glob=glob, is_checked=glob in patterns))
        globs.add(action)
        node.branches[f"={last}"] = ActionBranch(
            name=last, glob=action, description=description, is_checked=action in patterns
        )
    return root, [glob for glob in patterns if glob not in globs]


def _short(nanoseconds: int, zone: tzinfo) -> str:
    moment = local(nanoseconds, zone)
    return f"{moment:%Y-%m-%d %H:%M}" if moment.second == 0 else f"{moment:%Y-%m-%d %H:%M:%S}"
