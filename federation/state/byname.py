"""An immutable mapping by name, in order of the names. A successor shares every part that does not change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import TypeVar

V = TypeVar("V")
T = TypeVar("T")
PART = 64
"""Names per part: a successor copies the changed parts, and one pointer for each other part."""


class ByName(Mapping[str, V]):
    """Name -> value. A read costs as much as with a dict; `following` costs a small part of a dict's copy."""

    __slots__ = ("_at", "_derived", "_parts")

    def __init__(self, given: Mapping[str, V]) -> None:
        names = sorted(given)
        self._at = {name: number // PART for number, name in enumerate(names)}
        self._derived: dict[object, object] = {}
        self._parts = [
            {name: given[name] for name in names[first : first + PART]} for first in range(0, len(names), PART)
        ]

    def following(self, changed: Mapping[str, V]) -> ByName[V]:
        """The successor in which these names have these values."""
        if any(name not in self._at for name in changed):
            return ByName({**self, **changed})
        made: ByName[V] = object.__new__(ByName)
        made._at, made._parts, made._derived = self._at, list(self._parts), {}
        copied = set()
        for name, value in changed.items():
            number = self._at[name]
            if number not in copied:
                copied.add(number)
                made._parts[number] = dict(made._parts[number])
            made._parts[number][name] = value
        return made

    def derived(self, work: Callable[[ByName[V]], T]) -> T:
        """The result of the pure function `work` on this mapping, computed once. Callers must not change it."""
        if work not in self._derived:
            self._derived[work] = work(self)
        return self._derived[work]  # type: ignore[return-value]  # of this very work

    def __getitem__(self, name: str) -> V:
        return self._parts[self._at[name]][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, name: object) -> bool:
        return name in self._at

    def keys(self) -> KeysView[str]:
        """As a dict's."""
        return self._at.keys()

    def values(self) -> ValuesView[V]:
        """As a dict's."""
        return _Values(self)

    def items(self) -> ItemsView[str, V]:
        """As a dict's."""
        return _Items(self)

    def __repr__(self) -> str:
        return f"ByName({dict(self)!r})"


class _Values(ValuesView[V]):
    _mapping: ByName[V]

    def __iter__(self) -> Iterator[V]:
        return itertools.chain.from_iterable(map(dict.values, self._mapping._parts))


class _Items(ItemsView[str, V]):
    _mapping: ByName[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return itertools.chain.from_iterable(map(dict.items, self._mapping._parts))
