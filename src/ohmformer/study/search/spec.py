"""What is searched: choices, the designs that they make, and the settings of a search. Free of torch and of Optuna.

A design gives a value to every choice that is active. A value of a choice sets one path of the study or several.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from math import inf, prod
from typing import Any, Literal

Value = str | int | float | bool
"""Value of a choice as a design holds it: a plain value, the name of an option, or a table as text."""

Design = tuple[tuple[str, Value], ...]
"""(name of a choice, value) for every active choice, in the order of the file."""

Sampler = Literal["tpe", "nsga2", "random"]


@dataclass(frozen=True)
class Listed:
    """Values that a file lists.

    Attributes:
        values: the values as designs hold them, all different.
        sets: for each value, (path, what is set there).
    """

    values: tuple[Value, ...]
    sets: tuple[tuple[tuple[str, Any], ...], ...]

    @property
    def size(self) -> float:
        """Number of values."""
        return len(self.values)

    def each(self) -> Iterator[Value]:
        """All values."""
        yield from self.values

    def changes(self, value: Value) -> tuple[tuple[str, Any], ...]:
        """(path, what is set there) for a value."""
        return self.sets[[key_of(each) for each in self.values].index(key_of(value))]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        paths: the paths that are set to the number.
        step: distance of neighbors; None for any number between.
        log: True if numbers are drawn evenly in their logarithm.
        unit: text behind the number, such as "ns"; empty for plain numbers.
        whole: True for whole numbers.
    """

    paths: tuple[str, ...]
    low: float
    high: float
    step: float | None
    log: bool
    unit: str
    whole: bool

    @property
    def size(self) -> float:
        """Number of values; infinite without a step."""
        if self.step is None:
            return inf
        return int((Decimal(str(self.high)) - Decimal(str(self.low))) // Decimal(str(self.step))) + 1

    def each(self) -> Iterator[Value]:
        """All values of a range with a step."""
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        for number in range(int(self.size)):
            value = low + number * step
            yield int(value) if self.whole else float(value)

    def changes(self, value: Value) -> tuple[tuple[str, Any], ...]:
        """(path, what is set there) for a number."""
        written = f"{value} {self.unit}" if self.unit else value
        return tuple((path, written) for path in self.paths)


@dataclass(frozen=True)
class Choice:
    """One decision of a design.

    Attributes:
        name: its name, which is unique.
        where: its place in the file, for messages.
        domain: its values.
        when: name of an earlier choice -> the values of that choice with which this one is active; all must hold.
    """

    name: str
    where: str
    domain: Listed | Range
    when: Mapping[str, tuple[Value, ...]]

    def is_active(self, chosen: Mapping[str, Value]) -> bool:
        """True if the choice is to be made, given the choices before it."""
        return all(
            name in chosen and key_of(chosen[name]) in {key_of(each) for each in values}
            for name, values in self.when.items()
        )


@dataclass(frozen=True)
class Space:
    """All designs: the choices, in the order of the file."""

    choices: tuple[Choice, ...]

    def design(self, pick: Callable[[Choice], Value]) -> Design:
        """The design that takes what `pick` gives for each active choice."""
        chosen: dict[str, Value] = {}
        for choice in self.choices:
            if choice.is_active(chosen):
                chosen[choice.name] = pick(choice)
        return tuple(chosen.items())

    def changes(self, design: Design) -> dict[str, Any]:
        """Dotted path -> what a design sets there, in the order of the choices."""
        by_name = {choice.name: choice for choice in self.choices}
        return {path: value for name, chosen in design for path, value in by_name[name].domain.changes(chosen)}

    def each(self) -> Iterator[Design]:
        """All designs of a finite space."""

        def below(position: int, chosen: dict[str, Value]) -> Iterator[Design]:
            if position == len(self.choices):
                yield tuple(chosen.items())
                return
            choice = self.choices[position]
            if not choice.is_active(chosen):
                yield from below(position + 1, chosen)
                return
            for value in choice.domain.each():
                yield from below(position + 1, {**chosen, choice.name: value})

        return below(0, {})

    def size(self, most: int) -> float:
        """Number of designs; with conditions it is exact up to `most`, and otherwise some number above that."""
        sizes = [choice.domain.size for choice in self.choices]
        if inf in sizes or not any(choice.when for choice in self.choices):
            return prod(sizes)
        return sum(1 for _ in islice(self.each(), most + 1))


@dataclass(frozen=True)
class SearchTable:
    """`[search]` of a study.

    Attributes:
        trials: number of designs to try.
        objectives: names of quantities.
        constraints: texts such as "area <= 100 mm^2".
        space: the choices.
        first: designs that are tried before all others.
        batch: number of designs that are chosen before their results are known.
        sampler: how designs are proposed.
        seed: seed of the proposals; None for the seed of the study.
    """

    trials: int
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    space: Space
    first: tuple[Design, ...]
    batch: int
    sampler: Sampler
    seed: int | None


def key_of(value: Value) -> str:
    """Text that tells values apart, also 1 from true and from "1"."""
    return json.dumps(value)


def same(design: Design) -> str:
    """Text that tells designs apart."""
    return json.dumps(design)
