"""What kinds from outside the package give, tried once on a few conductances before they are used."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.registry import Family, is_own

LEVELS, NORMALS = 9, 7
"""Targets from G_min to G_max, and standard normals from -3 to 3, on which kinds are tried."""


def check_cell(cell: Cell, age: float) -> None:
    """Refuse kinds whose methods give something else than was asked for.

    Args:
        cell: whose kinds are tried; those of the package are taken as they are.
        age: time from programming to reading [s].

    Raises:
        BadInput: a method raises, or gives another shape or type, NaN, infinity, or a negative standard deviation; a
            write falls as its normal rises; or a method changes its arguments.
    """
    kinds: tuple[Family, ...] = (cell.write_noise, cell.read_noise, cell.drift)
    if not all(is_own(type(kind)) for kind in kinds):
        _check(*kinds, cell.g_min, cell.g_max, age, _Cell(cell))


class _Cell:
    """A cell that takes no part in the key of a cache."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Cell)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=256)
def _check(write: Family, read: Family, drift: Family, g_min: float, g_max: float, age: float, held: _Cell) -> None:
    cell = held.cell
    for dtype in (torch.float32, torch.float64):
        eps = torch.linspace(-3, 3, NORMALS, dtype=dtype)[:, None].repeat(1, LEVELS)
        g = torch.linspace(g_min, g_max, LEVELS, dtype=dtype).repeat(NORMALS, 1)
        if not is_own(type(write)):
            found = _tried(write, "found", g, lambda g, e: cell.write_noise.found(g, cell, e), eps)
            if bool((found.diff(dim=0) < 0).any()):
                raise BadInput(f"{_name(write)}.found: falls as eps rises; a write must rise with its standard normal")
            _check_std(write, "write_std", g, lambda g, _: cell.write_noise.write_std(g, cell), eps)
        if not is_own(type(read)):
            _check_std(read, "read_std", g, lambda g, _: _read_std(g, cell, age), eps)
        if not is_own(type(drift)) and cell.drift.acts(age):
            _tried(drift, "drifted", g, lambda g, e: cell.drift.drifted(g, g.clone(), cell, e, age=age), eps)


def _read_std(g: Tensor, cell: Cell, age: float) -> Tensor:
    written = g.clone() if cell.read_noise.remembers_writing else None
    return cell.read_noise.read_std(g, cell, age=age, written=written)


def _check_std(kind: Family, method: str, g: Tensor, given: Callable[[Tensor, Tensor], Tensor], eps: Tensor) -> None:
    if bool((_tried(kind, method, g, given, eps) < 0).any()):
        raise BadInput(f"{_name(kind)}.{method}: gives a negative standard deviation; clamp it to 0")


def _tried(kind: Family, method: str, g: Tensor, given: Callable[[Tensor, Tensor], Tensor], eps: Tensor) -> Tensor:
    """What a method gives, checked."""
    where = f"{_name(kind)}.{method}"
    before = g.clone(), eps.clone()
    try:
        found = given(g, eps)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{where}: raised {type(error).__name__}: {error}; correct the method") from error
    if not isinstance(found, Tensor) or found.shape != g.shape or found.dtype != g.dtype:
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise BadInput(f"{where}: gives {what} for {g.dtype} {list(g.shape)}; give a tensor of the same shape and type")
    if not bool(found.isfinite().all()):
        raise BadInput(f"{where}: gives NaN or infinity between G_min and G_max; correct the method")
    if not (torch.equal(g, before[0]) and torch.equal(eps, before[1])) or found.data_ptr() == g.data_ptr():
        raise BadInput(f"{where}: changes or returns its argument; return a new tensor")
    return found


def _name(kind: Family) -> str:
    return type(kind).__name__
