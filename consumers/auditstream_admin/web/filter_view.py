"""The filter as people handle it: chips to take off, a tree of actions to tick, links that change one thing."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Literal

from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.time_range import DEFAULT_PRESET, TimeRange
from auditstream_admin.web.formatting import local

PRESET_NAMES = {
    "15m": "Last 15 minutes",
    "1h": "Last hour",
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "90d": "Last 90 days",
    "12mo": "Last 12 months",
}
"""What the presets of `time_range` are called."""

ZONES = (
    "UTC",
    "America/Los_Angeles",
    "America/Denver",
    "America/Chicago",
    "America/New_York",
    "America/Sao_Paulo",
    "Europe/London",
    "Europe/Berlin",
    "Europe/Helsinki",
    "Africa/Johannesburg",
    "Asia/Dubai",
    "Asia/Kolkata",
    "Asia/Singapore",
    "Asia/Tokyo",
    "Australia/Sydney",
    "Pacific/Auckland",
)
"""Zones to choose from; the browser's own is added there, and the URL takes any."""

_LABELS = {"actor": "Actor", "target": "Target", "scope": "Scope", "request": "Request"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One condition that is in force.

    Attributes:
        label: What it is about.
        value: What is asked for.
        without: URL of the list without it.
    """

    label: str
    value: str
    without: str


@dataclass(slots=True, kw_only=True)
class ActionBranch:
    """A node of the tree of actions.

    Attributes:
        name: Its last word.
        glob: What ticking it asks for: the action, or ``word.*`` for all below.
        description: What the catalog says; empty for a branch.
        is_ticked: Whether the filter asks for it.
        branches: What lies below, by name.
    """

    name: str
    glob: str
    description: str = ""
    is_ticked: bool = False
    branches: dict[str, "ActionBranch"] = field(default_factory=dict)

    @property
    def holds_tick(self) -> bool:
        """Whether it, or something below, is asked for."""
        return self.is_ticked or any(branch.holds_tick for branch in self.branches.values())


def list_url(wanted: EventFilter, **changes: object) -> str:
    """The URL of the list with the filter changed; by the names of its attributes."""
    query = wanted.with_(**changes).query()
    return f"/events?{query}" if query else "/events"


def chips(wanted: EventFilter, zone: tzinfo) -> list[Chip]:
    """The conditions in force, in the order of the URL."""
    found = []
    if wanted.time.start is not None or wanted.time.preset != DEFAULT_PRESET:
        found.append(
            Chip(label="Time", value=range_name(wanted.time, zone), without=list_url(wanted, time=TimeRange()))
        )
    for glob in wanted.actions:
        rest = tuple(other for other in wanted.actions if other != glob)
        found.append(Chip(label="Action", value=glob, without=list_url(wanted, actions=rest)))
    for name, label in _LABELS.items():
        value = getattr(wanted, name)
        if value is not None:
            found.append(Chip(label=label, value=value, without=list_url(wanted, **{name: None})))
    if wanted.success is not None:
        value = "Succeeded" if wanted.success else "Failed"
        found.append(Chip(label="Outcome", value=value, without=list_url(wanted, success=None)))
    for pair in wanted.metadata:
        others = tuple(other for other in wanted.metadata if other != pair)
        found.append(Chip(label=pair[0], value=pair[1], without=list_url(wanted, metadata=others)))
    if wanted.text is not None:
        found.append(Chip(label="Payload has", value=wanted.text, without=list_url(wanted, text=None)))
    return found


def range_name(time: TimeRange, zone: tzinfo) -> str:
    """A range for people."""
    if time.start is None:
        return PRESET_NAMES[time.preset]
    first = _short(time.start, zone)
    if time.end is None:
        return f"since {first}"
    last = _short(time.end, zone)
    day = first[:10]
    return f"{first} – {last[11:] if last.startswith(day) else last}"  # noqa: RUF001 - a range


def form_time(nanoseconds: int, zone: tzinfo, *, edge: Literal["start", "end"]) -> str:
    """An instant as a field of a form takes it, in a zone: to the millisecond, and never a smaller range."""
    milliseconds = nanoseconds // 1_000_000 if edge == "start" else -(-nanoseconds // 1_000_000)
    moment = local(milliseconds * 1_000_000, zone)
    fraction = f".{milliseconds % 1000:03d}" if milliseconds % 1000 else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}"


def action_tree(names: Iterable[tuple[str, str]], ticked: Iterable[str]) -> tuple[ActionBranch, list[str]]:
    """Lay actions out by their words.

    Args:
        names: Actions, each with its description.
        ticked: Globs that the filter asks for.

    Returns:
        The root of the tree, and the globs that are no node of it.
    """
    wanted = list(ticked)
    root = ActionBranch(name="", glob="*")
    nodes = set()
    for action, description in names:
        *folders, last = action.split(".")
        here = root
        for depth, word in enumerate(folders):
            glob = ".".join(folders[: depth + 1]) + ".*"
            nodes.add(glob)
            here = here.branches.setdefault(word, ActionBranch(name=word, glob=glob, is_ticked=glob in wanted))
        nodes.add(action)
        here.branches[f"={last}"] = ActionBranch(
            name=last, glob=action, description=description, is_ticked=action in wanted
        )
    return root, [glob for glob in wanted if glob not in nodes]


def _short(nanoseconds: int, zone: tzinfo) -> str:
    moment = local(nanoseconds, zone)
    return f"{moment:%Y-%m-%d %H:%M}" if moment.second == 0 else f"{moment:%Y-%m-%d %H:%M:%S}"
