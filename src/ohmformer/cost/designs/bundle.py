"""Prices many accelerators at once that differ in numbers alone, such as energies, times and areas.

They become one accelerator whose differing numbers are `PerDesign`, which is priced as any other. Accelerators that
differ in anything else, such as rows or kinds of engines, are priced apart, and so are those for which a decision
comes out differently. What cannot be priced in this way is priced alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from ohmformer.cost.designs.per_design import Disagreement, PerDesign
from ohmformer.schema import Spec

Item = TypeVar("Item")
Found = TypeVar("Found")
AnySpec = TypeVar("AnySpec", bound=Spec)

MOST_AT_ONCE = 1000
"""Maximum number of designs that are priced at once, so that stages in caches stay small."""
FEWEST_AT_ONCE = 3
"""Minimum number of designs for which pricing at once is faster than one by one."""
NO_PRICE = frozenset(("provenance", "title"))
"""Fields that decide no price."""


def bundled(specs: Sequence[AnySpec]) -> AnySpec:
    """One specification for several; numbers in which they differ become `PerDesign`.

    Raises:
        Disagreement: they differ in something else.
    """
    bundle = _Bundle()
    spec: AnySpec = bundle.value(list(specs))
    if bundle.differences:
        numbers: dict[tuple[Hashable, ...], int] = {}
        designs = zip(*bundle.differences, strict=True)
        raise Disagreement(np.array([numbers.setdefault(keys, len(numbers)) for keys in designs]))
    return spec


class _Bundle:
    """Bundles values that are at the same place of several specifications.

    Attributes:
        differences: for each place at which they differ in more than numbers, a key of each value.
        made: values of a bundled specification -> the specification, so that equal ones are the same object.
    """

    def __init__(self) -> None:
        self.differences: list[list[Hashable]] = []
        self.made: dict[Hashable, Spec] = {}

    def value(self, found: list[Any]) -> Any:
        """The bundle of the values at one place."""
        first = found[0]
        if len(set(map(id, found))) == 1:
            return first
        kinds = set(map(type, found))
        if kinds == {float}:
            numbers = np.array(found)
            return PerDesign(numbers) if (numbers != first).any() else first
        if len(kinds) == 1 and isinstance(first, Spec):
            return self._spec(first, found)
        keys: list[Hashable] = [type(each) if isinstance(each, Spec) else (type(each), _key(each)) for each in found]
        if len(set(keys)) > 1:
            self.differences.append(keys)
        return first

    def _spec(self, first: Spec, found: list[Any]) -> Spec:
        """The bundle of specifications of one type."""
        names = [name for name in type(first).model_fields if name not in NO_PRICE]
        values = {name: self.value(list(map(attrgetter(name), found))) for name in names}
        key = (type(first), *(value if isinstance(value, PerDesign) else _key(value) for value in values.values()))
        if key not in self.made:
            self.made[key] = first.model_copy(update=values)
        return self.made[key]


def _key(value: Any) -> Hashable:
    """A key that is equal for equal values; specifications and values without a hash are compared by identity."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return id(value) if isinstance(value, Spec) else value


def price_at_once(
    items: Sequence[Item],
    hardware: Callable[[Item], Spec],
    kind: Callable[[Item], Hashable],
    price: Callable[[Item, Any, int], Found],
) -> list[tuple[Found, int]]:
    """Price each item, many at once where they differ in numbers alone.

    Args:
        items: what is priced.
        hardware: the accelerator of an item.
        kind: items of one kind differ in their accelerator alone.
        price: prices items, given the first of them, the accelerator that stands for those of all, and their number.

    Returns:
        For each item, what was found for all that were priced with it, and its place among them.

    Raises:
        BadInput: the price of an item cannot be given; of several, that of the first.
    """
    found: dict[int, tuple[Found, int]] = {}
    alone: list[int] = []
    waiting = list(_in_chunks(items, kind))
    while waiting:
        group = waiting.pop()
        if len(group) < FEWEST_AT_ONCE:
            alone += group
            continue
        try:
            with np.errstate(divide="raise", over="raise", invalid="raise"):
                shared = price(items[group[0]], bundled([hardware(items[number]) for number in group]), len(group))
        except Disagreement as split:
            parts = _parts(group, split.outcomes)
            waiting += parts if len(parts) > 1 else []
            alone += group if len(parts) == 1 else []
        except Exception:  # what fails for many is tried alone, which gives the message of the first
            alone += group
        else:
            found |= {number: (shared, place) for place, number in enumerate(group)}
    for number in sorted(alone):
        found[number] = price(items[number], hardware(items[number]), 1), 0
    return [found[number] for number in range(len(items))]


def _in_chunks(items: Sequence[Item], kind: Callable[[Item], Hashable]) -> Iterator[list[int]]:
    """Positions of items of one kind, at most `MOST_AT_ONCE` at a time."""
    kinds: dict[Hashable, list[int]] = {}
    for number, item in enumerate(items):
        kinds.setdefault(kind(item), []).append(number)
    for group in kinds.values():
        for start in range(0, len(group), MOST_AT_ONCE):
            yield group[start : start + MOST_AT_ONCE]


def _parts(group: list[int], outcomes: Any) -> list[list[int]]:
    """The members of a group, those with the same outcome together."""
    parts: dict[Hashable, list[int]] = {}
    for number, outcome in zip(group, outcomes.tolist(), strict=True):
        parts.setdefault(outcome, []).append(number)
    return list(parts.values())
