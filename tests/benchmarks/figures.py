"""The measured figures, as a table for people and a list for programs."""

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
        note: Explanation; only in the table.
    """

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target for a figure.

    Attributes:
        text: The target in the table.
        met: Tells whether a value meets the target.
    """

    text: str
    met: Callable[[float], bool]


def at_least(bound: float) -> Target:
    """A lower bound."""
    return Target(text=f">= {bound:g}", met=lambda value: value >= bound)


def below(bound: float) -> Target:
    """An upper bound."""
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
"""The targets of sink, export and page, by the name of the figure."""


class Figures:
    """Collects figures: prints each on standard error at once, and all of them at the end."""

    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}

    def add(self, name: str, value: float, unit: str, note: str = "") -> None:
        """Add a figure; it replaces one of the same name."""
        self._figures[name] = Figure(name=name, value=value, unit=unit, note=note)
        click.echo(f"  {name} {_formatted(value)} {unit}{f'  ({note})' if note else ''}", err=True)

    def progress(self, text: str) -> None:
        """Print progress on standard error."""
        click.echo(f"    {text}", err=True)

    def get(self, name: str) -> float | None:
        """The value of a figure, if it was measured."""
        figure = self._figures.get(name)
        return None if figure is None else figure.value

    def ratio(self, name: str, part: str, whole: str, note: str = "") -> None:
        """Add the ratio of two figures, if both were measured."""
        above, under = self.get(part), self.get(whole)
        if above is not None and under:
            self.add(name, above / under, "ratio", note or f"{part} / {whole}")

    def table(self) -> str:
        """All figures, one a line, with their targets."""
        width = max((len(name) for name in self._figures), default=0)
        lines = []
        for figure in self._figures.values():
            target = TARGETS.get(figure.name)
            result = ""
            if target is not None:
                result = f"{target.text} {'met' if target.met(figure.value) else 'MISSED'}"
            line = f"{figure.name:<{width}} {_formatted(figure.value):>14} {figure.unit:<14} {result:<14} {figure.note}"
            lines.append(line.rstrip())
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write the list ``[{"name", "value", "unit"}, …]``; the file is replaced only on success."""
        rows = [{"name": figure.name, "value": figure.value, "unit": figure.unit} for figure in self._figures.values()]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        part.replace(path)


def _formatted(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
