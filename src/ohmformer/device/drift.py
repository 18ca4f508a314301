"""Conductance drift: the change of a written conductance over time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ohmformer.device.spec import Cell
from ohmformer.registry import called


def drifts(cell: Cell, age: float) -> bool:
    """True if conductances change at all within `age` seconds."""
    return bool(called(cell.drift, "acts", age))


def drift(g: Tensor, target: Tensor, cell: Cell, eps: Tensor, *, age: float) -> Tensor:
    """Conductances [S] some time after programming.

    Args:
        g: conductances just after writing [S], of any shape.
        target: conductances that were to be written [S].
        cell: the cell.
        eps: standard normals of the same shape, one for each cell.
        age: time since programming [s].

    Returns:
        Conductances of the same shape; g itself if the cell does not drift.
    """
    return cell.drift.drifted(g, target, cell, eps, age=age) if drifts(cell, age) else g


def drift_by_age(g: Tensor, target: Tensor, cell: Cell, eps: Tensor, ages: Tensor) -> Tensor:
    """`drift` of cells that were written at different times.

    Args:
        g: conductances just after writing [S], of any shape.
        target: conductances that were to be written [S].
        cell: the cell.
        eps: standard normals of the same shape, one for each cell.
        ages: time since programming of each cell [s], float64 on the CPU; broadcasts against g.

    Returns:
        A new tensor of conductances [S] of the same shape.
    """
    if cell.drift.takes_ages:
        aged = cell.drift.drifted(g, target, cell, eps, age=ages)  # type: ignore[arg-type]
        return torch.where((ages > 0).to(g.device), aged, g)
    return age_by_age(ages, lambda age, part: drift(part(g), part(target), cell, part(eps), age=age), g)


def age_by_age(ages: Tensor, compute: Callable[[float, Callable[[Tensor], Tensor]], Tensor], like: Tensor) -> Tensor:
    """What `compute(age, part)` gives for the cells of each age, put together.

    Args:
        ages: an age of each cell [s], float64 on the CPU; broadcasts against `like`.
        compute: function of one age, and of the function that takes the cells of this age from a tensor.
        like: a tensor of the shape of the result.
    """
    found = like.clone()
    places = ages.expand(like.shape)
    for age in ages.unique().tolist():
        here = (places == age).to(like.device)
        found[here] = compute(age, lambda t, here=here: t.expand(like.shape)[here])  # type: ignore[misc]
    return found
