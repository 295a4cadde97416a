"""`Fault`, the error about one refused value, and the text of refused values in messages."""

from dataclasses import dataclass
from typing import Any

SHOWN = 50
"""Characters of a refused value in a message, so that it stays below 80 with the words around it."""


@dataclass(frozen=True, slots=True)
class JsonNumber:
    """A number of a JSON text that is not a short integer; ``text`` is its original spelling."""

    text: str


_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
_KINDS |= dict.fromkeys((int, float, JsonNumber), "a number")


class Fault(ValueError):  # noqa: N818 (collected; callers see an InvalidEventError)
    """One value breaks the contract; `Faults` turns it into an `InvalidEventError` that names the field.

    Attributes:
        was: The value or its kind, shortened.
        expected: What is allowed.
    """

    def __init__(self, was: str, expected: str) -> None:
        super().__init__(f"was {was}, expected {expected}")
        self.was = was
        self.expected = expected


def shown(value: object) -> str:
    """Return a value for a message: unprintable characters escaped, cut at `SHOWN` characters."""
    if isinstance(value, JsonNumber):
        return value.text if len(value.text) <= SHOWN else value.text[: SHOWN - 3] + "..."
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() < 256:
        return int.__repr__(value)
    if isinstance(value, str):
        text = repr(value[: SHOWN + 1])
        return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
    return kind(value)


def kind(value: object) -> str:
    """Name the kind of a value without showing it, because it may be secret."""
    name = type(value).__name__
    return _KINDS.get(type(value)) or f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def path_part(key: Any) -> str:
    """Write a key as one part of a field's path."""
    return key if isinstance(key, str) and key.isprintable() and 0 < len(key) <= SHOWN else shown(key)
