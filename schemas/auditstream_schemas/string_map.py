"""An immutable mapping of strings, sorted by key."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView


class StringMap(Mapping[str, str]):
    """Strings by name; can be hashed, copied and pickled. A map equals any mapping with the same items.

    Keys are sorted by code point, so that equal maps encode to equal bytes.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str] | None = None) -> None:
        self._items: dict[str, str] = dict(sorted(items.items())) if items else {}

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def keys(self) -> KeysView[str]:
        """View of the keys."""
        return self._items.keys()

    def values(self) -> ValuesView[str]:
        """View of the values."""
        return self._items.values()

    def items(self) -> ItemsView[str, str]:
        """View of the keys with their values."""
        return self._items.items()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._items == dict(other)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return f"StringMap({self._items!r})"


EMPTY = StringMap()
