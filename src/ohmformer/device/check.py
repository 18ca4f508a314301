"""A check of kinds of noise and drift from outside the package: each method is tried once on a few conductances."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ohmformer.device.families import GaussianWriteNoise
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.registry import Family, is_own

LEVELS, NORMALS = 9, 7
"""Number of targets from G_min to G_max, and of standard normals from -3 to 3, in the trial."""


def check_cell(cell: Cell, age: float) -> None:
    """Refuse kinds of noise and drift whose methods break their contract.

    Args:
        cell: the cell; kinds that belong to the package are not tried.
        age: time from programming to reading [s].

    Raises:
        BadInput: a method raises an exception; returns another shape or type, NaN, infinity, or a negative standard
            deviation; changes its arguments; or the written conductance falls as eps rises.
    """
    kinds: tuple[Family, ...] = (cell.write_noise, cell.read_noise, cell.drift)
    if not all(is_own(type(kind)) for kind in kinds):
        _check(*kinds, cell.g_min, cell.g_max, age, _Uncached(cell))


class _Uncached:
    """A cell as an argument of a cached function that is not part of the cache key."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Uncached)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=256)
def _check(
    write: Family, read: Family, drift: Family, g_min: float, g_max: float, age: float, uncached: _Uncached
) -> None:
    """Try the kinds of one cell; what is tried depends on all arguments but the last."""
    cell = uncached.cell
    for dtype in (torch.float32, torch.float64):
        eps = torch.linspace(-3, 3, NORMALS, dtype=dtype)[:, None].repeat(1, LEVELS)
        g = torch.linspace(g_min, g_max, LEVELS, dtype=dtype).repeat(NORMALS, 1)
        if not is_own(type(write)):
            # Deviation and mean first: a Gaussian kind defines these alone, and `after_write` follows from them.
            _check_std(write, "write_std", g, lambda g, _: cell.write_noise.write_std(g, cell), eps)
            if isinstance(write, GaussianWriteNoise) and not write.mean_is_target:
                _tried(write, "write_mean", g, lambda g, _: write.write_mean(g, cell), eps)
            g_after = _tried(write, "after_write", g, lambda g, e: cell.write_noise.after_write(g, cell, e), eps)
            if bool((g_after.diff(dim=0) < 0).any()):
                raise BadInput(
                    f"{_name(write)}.after_write: falls as eps rises; a write must rise with its standard normal"
                )
        if not is_own(type(read)):
            _check_std(read, "read_std", g, lambda g, _: _read_std(g, cell, age), eps)
        if not is_own(type(drift)) and cell.drift.acts(age):
            _tried(drift, "drifted", g, lambda g, e: cell.drift.drifted(g, g.clone(), cell, e, age=age), eps)


def _read_std(g: Tensor, cell: Cell, age: float) -> Tensor:
    written = g.clone() if cell.read_noise.remembers_writing else None
    return cell.read_noise.read_std(g, cell, age=age, written=written)


def _check_std(kind: Family, method: str, g: Tensor, call: Callable[[Tensor, Tensor], Tensor], eps: Tensor) -> None:
    if bool((_tried(kind, method, g, call, eps) < 0).any()):
        raise BadInput(f"{_name(kind)}.{method}: returns a negative standard deviation; clamp it to 0")


def _tried(kind: Family, method: str, g: Tensor, call: Callable[[Tensor, Tensor], Tensor], eps: Tensor) -> Tensor:
    """The result of `call(g, eps)`, checked; `kind` and `method` are for messages."""
    where = f"{_name(kind)}.{method}"
    before = g.clone(), eps.clone()
    try:
        result = call(g, eps)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{where}: raised {type(error).__name__}: {error}; correct the method") from error
    if not isinstance(result, Tensor) or result.shape != g.shape or result.dtype != g.dtype:
        what = f"{result.dtype} {list(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise BadInput(
            f"{where}: returns {what} for {g.dtype} {list(g.shape)}; return a tensor of the same shape and type"
        )
    if not bool(result.isfinite().all()):
        raise BadInput(f"{where}: returns NaN or infinity between G_min and G_max; correct the method")
    if not (torch.equal(g, before[0]) and torch.equal(eps, before[1])) or result.data_ptr() == g.data_ptr():
        raise BadInput(f"{where}: changes or returns its argument; return a new tensor")
    return result


def _name(kind: Family) -> str:
    return type(kind).__name__
