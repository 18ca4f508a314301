"""Writes of pairs of cells where digits, write noise, its clamp and sums are one compiled loop on the CPU.

Shapes: S slices (copies included), O outputs, I inputs, M magnitudes of codes; `...` are matrices that share one call,
such as samples and heads.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ohmformer.array.folded import Folded
from ohmformer.array.gaussian_writes.moments import gaussian_pairs, means_and_stds, of_whole_values
from ohmformer.array.kernels.read_variance import variance_of_digits
from ohmformer.array.same import Same
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.device import noise
from ohmformer.streams.backends import compiles

if TYPE_CHECKING:
    from ohmformer.array.crossbar import WriteRequest

NO_READS = (0.0, 0.0, 0.0)


def fusible(request: WriteRequest, read_noise: bool) -> bool:
    """True if `written` and `digits_written` support the write: float32 on a CPU with compiled kernels.

    They support whole codes in pairs of cells with Gaussian write noise, without drift, faults, wear, losses in wires,
    mismatch of converters, verified or residual writing. If read noise is simulated, its variance must be a polynomial.
    """
    array, codes = request.array, request.codes
    if not compiles(codes.device, request.stream.kernels) or codes.dtype is not torch.float32 or not request.whole:
        return False
    if noise.silent(array.aged_cell) or not gaussian_pairs(array):
        return False
    return not read_noise or variance_of_digits(array) is not None


def written(request: WriteRequest, read_noise: bool) -> Folded:
    """`write_folded` of a write that is `fusible`, with the same random numbers.

    Noise is added in digits, not in siemens, so results differ by the rounding of floating-point numbers.
    """
    from ohmformer.array.kernels.writes import cell_writes_compiled

    array, unit = request.array, request.unit
    coefficients = variance_of_digits(array) if read_noise and not noise.exact_reads(array.cell) else None
    codes, numbers = _numbers(request)
    held = torch.empty_like(codes)
    variance = torch.empty_like(codes) if coefficients is not None else torch.empty(0)
    tables, low, high = tables_of(array, request.slices)
    flat = (t.view(-1).numpy() for t in (held, variance, codes))
    copies = float(array.redundancy)
    *drawn, row, slice_step, row_step = numbers
    pairs = not one_sided(array)
    cell_writes_compiled.fold(
        *flat, *drawn, tables, low, high, copies, *(coefficients or NO_READS), pairs, row, slice_step, row_step
    )
    if request.major == "inputs":
        held, variance = held.transpose(-2, -1), variance.transpose(-2, -1) if variance.numel() else variance
    spread = None if coefficients is None else variance.mul_(unit**2)
    return Folded(held.mul_(unit), spread, None, unit, request.slices)


def normals_written(request: WriteRequest) -> Tensor:
    """What the cells of each value of a `fusible` write hold together, in codes [..., O, I], from one normal each.

    It leaves out the clamp, so it is for writes for which `one_number.clamp_is_negligible`.
    """
    from ohmformer.array.kernels.writes import cell_writes_compiled

    codes, (*drawn, row, _, _) = _numbers(request, slices=1, halves=1)
    held, tables = torch.empty_like(codes), _tables_of_values(Same(request.array), request.slices)
    cell_writes_compiled.one_normal(held.view(-1).numpy(), codes.view(-1).numpy(), *drawn, tables, row)
    return held.transpose(-2, -1) if request.major == "inputs" else held


def digits_written(request: WriteRequest) -> Tensor:
    """The digits [2, S, ..., O, I] that `write` of a write that is `fusible` leaves, with the same random numbers."""
    from ohmformer.array.kernels.writes import cell_writes_compiled

    codes, (*drawn, row, slice_step, row_step) = _numbers(request)
    digits = codes.new_empty(2, request.slices, *codes.shape)
    tables, low, high = tables_of(request.array, request.slices)
    flat = (t.view(-1).numpy() for t in (digits, codes))
    pairs = not one_sided(request.array)
    cell_writes_compiled.write(*flat, *drawn, tables, low, high, pairs, row, slice_step, row_step)
    return digits.transpose(-2, -1) if request.major == "inputs" else digits


def _numbers(
    request: WriteRequest, slices: int | None = None, halves: int | None = None
) -> tuple[Tensor, tuple[Any, ...]]:
    """The codes in the order in which numbers are drawn, contiguous; and what loops take of these numbers.

    Those are normals, rows and nth of `Undrawn`, and `row`, `slice_step` and `row_step` of `cell_writes_compiled.fold`.
    """
    codes = request.codes.transpose(-2, -1) if request.major == "inputs" else request.codes
    codes = codes.contiguous()
    halves = halves or (1 if one_sided(request.array) else 2)
    numbers, keys = request.writer("cell").undrawn_of_slices(codes.shape, slices or request.slices, halves)
    row = codes.numel() // keys
    arrays = numbers.normals.numpy(), numbers.rows.numpy(), numbers.nth
    return codes, (*arrays, row, halves * codes.numel(), halves * row)


def tables_of(array: Crossbar, slices: int) -> tuple[Any, float, float]:
    """Means, standard deviations and weights [3, S, M] of digits, and the lowest and highest digit of a cell."""
    return _tables(Same(array), slices)


@lru_cache(maxsize=64)
def _tables(same: Same[Crossbar], slices: int) -> tuple[Any, float, float]:
    array = same.value
    means, stds = means_and_stds(array, slices)
    weights = torch.tensor([[array.slice_weight(s)] for s in range(slices)], dtype=torch.float64)
    tables = torch.stack([means, stds, weights.expand_as(means)]).float()
    ceiling = math.inf if array.cell.g_ceiling is None else array.cell.g_ceiling
    low, high = ((g - array.cell.g_min) / array.step for g in (0.0, ceiling))
    return tables.numpy(), low, high


@lru_cache(maxsize=64)
def _tables_of_values(same: Same[Crossbar], slices: int) -> Any:
    """Means and standard deviations [2, M] of whole values, in codes."""
    return torch.stack(of_whole_values(same.value, slices)).float().numpy()
