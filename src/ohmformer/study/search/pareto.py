"""The Pareto front: the designs that no other one beats in all objectives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Point = tuple[float, ...]
"""The objectives of a design, as numbers of which lower ones are better."""


def dominates(one: Point, other: Point) -> bool:
    """True if a point is at least as good as another one in all objectives, and better in one."""
    return one != other and all(mine <= its for mine, its in zip(one, other, strict=True))


def dominating(points: Iterable[tuple[int, Point]], other: Point) -> int | None:
    """The first number whose point dominates another point; None if there is none."""
    return next((number for number, point in points if dominates(point, other)), None)


def front(points: Sequence[Point]) -> list[bool]:
    """For each point, True if no other one dominates it. Equal points are on the front together."""
    if not points:
        return []
    table = np.array(points)
    found = []
    for point in table:
        no_worse, better = (table <= point).all(axis=1), (table < point).any(axis=1)
        found.append(not bool((no_worse & better).any()))
    return found
