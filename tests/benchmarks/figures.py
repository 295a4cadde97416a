"""What was measured: a table for people, a list for programs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement.

    Attributes:
        name: Dotted name, the group first.
        value: In ``unit``.
        unit: ``records/s``, ``ratio``, ``s``, ``bytes`` …
        note: What it is made of; for the table alone.
    """

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure should be.

    Attributes:
        text: As the table shows it.
        met: Whether a value meets it.
    """

    text: str
    met: Callable[[float], bool]


def at_least(bound: float) -> Target:
    """The more the better."""
    return Target(text=f">= {bound:g}", met=lambda value: value >= bound)


def below(bound: float) -> Target:
    """The less the better."""
    return Target(text=f"< {bound:g}", met=lambda value: value < bound)


TARGETS = {
    "sink.ours.of_limit": at_least(0.9),
    "sink.ours.of_naive": at_least(8),
    "sink.memory": below(400),
    "sink.bytes_per_event": below(45.05),
    "sink.latency.10000.p99": below(2),
    "sink.growth.50.lookup_share": below(0.2),
    **{f"export.ours.of_straight{suffix}": at_least(0.85) for suffix in ("", ".10", ".50")},
    "export.ours.of_naive": at_least(10),
    **{f"export.memory{suffix}": below(150) for suffix in ("", ".10", ".50")},
    "admin.50.page": below(200),
    "admin.50.histogram": below(500),
    "admin.50.permalink": below(50),
}
"""What sink, export and page are held to, by the figure's name; a figure that was not measured is not judged."""


class Figures:
    """Collects figures, says each on standard error as it comes, and shows them all at the end."""

    def __init__(self) -> None:
        self._found: dict[str, Figure] = {}

    def add(self, name: str, value: float, unit: str, note: str = "") -> None:
        """Enter one figure; a second one under its name replaces it."""
        self._found[name] = Figure(name=name, value=value, unit=unit, note=note)
        click.echo(f"  {name} {_shown(value)} {unit}{f'  ({note})' if note else ''}", err=True)

    def progress(self, text: str) -> None:
        """Say on standard error what has just been done."""
        click.echo(f"    {text}", err=True)

    def get(self, name: str) -> float | None:
        """The value of a figure, if it was measured."""
        found = self._found.get(name)
        return None if found is None else found.value

    def ratio(self, name: str, part: str, whole: str, note: str = "") -> None:
        """Enter the ratio of two figures, if both were measured."""
        above, under = self.get(part), self.get(whole)
        if above is not None and under:
            self.add(name, above / under, "ratio", note or f"{part} / {whole}")

    def table(self) -> str:
        """All figures, one a line, with their targets."""
        width = max((len(name) for name in self._found), default=0)
        lines = []
        for figure in self._found.values():
            target = TARGETS.get(figure.name)
            judged = ""
            if target is not None:
                judged = f"{target.text} {'met' if target.met(figure.value) else 'MISSED'}"
            line = f"{figure.name:<{width}} {_shown(figure.value):>14} {figure.unit:<14} {judged:<14} {figure.note}"
            lines.append(line.rstrip())
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write the list ``[{"name", "value", "unit"}, …]``; on success alone is the file replaced."""
        rows = [{"name": each.name, "value": each.value, "unit": each.unit} for each in self._found.values()]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        part.replace(path)


def _shown(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
