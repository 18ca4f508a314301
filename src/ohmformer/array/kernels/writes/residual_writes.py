"""Writes of cells that correct one another, where all cells of a value are one compiled loop on the CPU.

Shapes: S slices (copies included), O outputs, I inputs, L levels of a cell, T points of a policy; `...` are matrices
that share one call, such as samples and heads.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ohmformer.array.folded import Folded
from ohmformer.array.gaussian_writes.moments import gaussian_cells, of_digits
from ohmformer.array.kernels.read_variance import variance_of_digits
from ohmformer.array.residual.policy import Choice, policy
from ohmformer.array.residual.writing import open_read_backs
from ohmformer.array.same import Same
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.device import noise
from ohmformer.streams.backends import compiles
from ohmformer.streams.counted_source import Undrawn

if TYPE_CHECKING:
    from ohmformer.array.crossbar import WriteRequest

Numbers = npt.NDArray[np.float32]
_NONE = torch.empty(0)
_NO_READ_BACKS = Undrawn(_NONE, torch.zeros(1, 7, dtype=torch.int64), 0)


def fusible(request: WriteRequest) -> bool:
    """True if `written` and `digits_written` support the write: float32 on a CPU with compiled kernels.

    They support pairs of cells with Gaussian write noise, without drift, faults, wear and corrections of later weights.
    If reads are noisy, their variance must be a polynomial.
    """
    array, codes = request.array, request.codes
    if array.residual is None or array.residual.feedback:
        return False
    if not compiles(codes.device, request.stream.kernels) or codes.dtype is not torch.float32:
        return False
    if noise.silent(array.aged_cell) or not gaussian_cells(array):
        return False
    return variance_of_digits(array) is not None


def written(request: WriteRequest, read_noise: bool) -> Folded:
    """`write_folded` of a write that is `fusible`, with the same random numbers.

    Noise is added in digits, not in siemens, so results differ by the rounding of floating-point numbers; and where a
    rounded number chooses another digit.
    """
    array, unit = request.array, request.unit
    values = _in_order(request)
    held = torch.empty_like(values)
    variance = torch.empty_like(values) if read_noise and not noise.exact_reads(array.cell) else _NONE
    _write(request, values, held, variance, _NONE)
    spread = variance.mul_(_turned(unit, request) ** 2) if variance.numel() else None
    held = held.mul_(_turned(unit, request))
    if request.major == "inputs":
        held, spread = held.transpose(-2, -1), None if spread is None else spread.transpose(-2, -1)
    return Folded(held, spread, None, unit, request.slices)


def digits_written(request: WriteRequest) -> Tensor:
    """The digits [2, S, ..., O, I] that `write` of a write that is `fusible` leaves, with the same random numbers."""
    values = _in_order(request)
    digits = values.new_empty(2, request.slices, *values.shape)
    _write(request, values, torch.empty_like(values), _NONE, digits)
    return digits.transpose(-2, -1) if request.major == "inputs" else digits


def _in_order(request: WriteRequest) -> Tensor:
    """The values in the order in which random numbers run, contiguous."""
    return _turned(request.codes, request).contiguous()


def _turned(t: Tensor, request: WriteRequest) -> Tensor:
    return t.transpose(-2, -1) if request.major == "inputs" else t


def _write(request: WriteRequest, values: Tensor, held: Tensor, variance: Tensor, digits: Tensor) -> None:
    """Fill what cells hold, its variance and the digits of both halves, the last two where they are not empty."""
    from ohmformer.array.kernels.writes import residual_writes_compiled

    array, writer, tables = request.array, request.writer("cell"), _tables(Same(request.array), request.max_code)
    halves = 1 if one_sided(array) else 2
    numbers, keys = writer.undrawn_of_slices(values.shape, request.slices, halves)
    source, reads = open_read_backs(writer), _NO_READ_BACKS
    if source is not None and request.slices > 1:
        reads, _ = writer.undrawn_of_slices(values.shape, request.slices - 1, 1, source)
    flat = (t.view(-1).numpy() for t in (held, variance, digits, values))
    drawn = (t if isinstance(t, int) else t.numpy() for t in (*numbers, *reads))
    residual_writes_compiled.fold(*flat, *drawn, *tables, halves == 2, values.numel() // keys)


class _Tables(NamedTuple):
    """What `residual_writes_compiled.fold` takes of an array."""

    bounds: Numbers
    chosen: Numbers
    weights: Numbers
    read_back: Numbers
    zero: Numbers
    reads: Numbers
    limits: Numbers


@lru_cache(maxsize=64)
def _tables(same: Same[Crossbar], max_code: int | None) -> _Tables:
    """The policy, the cells and the reads of an array."""
    array, rules = same.value, policy(same.value, max_code)
    reads, held = variance_of_digits(array), torch.stack(of_digits(array)).numpy()
    assert reads is not None
    parts = [_steps(choice) for choice in rules.choices]
    most = max(len(bounds) for bounds, _ in parts)
    bounds = np.stack([np.pad(bounds, (0, most - len(bounds)), constant_values=math.inf) for bounds, _ in parts])
    digits = np.stack([np.pad(digits, (0, most + 1 - len(digits)), mode="edge") for _, digits in parts])
    chosen = np.stack([digits, *held[:, np.abs(digits)]], axis=1)
    of_value = [choice.weight for choice in rules.choices]
    ceiling = math.inf if array.cell.g_ceiling is None else array.cell.g_ceiling
    cell = [(g - array.cell.g_min) / array.step for g in (0.0, ceiling)]
    exact = rules.read_back is None
    table = np.empty((0, 0)) if rules.read_back is None else rules.read_back.numpy()
    of_read = 1.0 if exact else rules.read_back_step, rules.lowest_code, not noise.exact_reads(array.cell)
    limits = [*cell, rules.choices[0].step / 2, array.redundancy, *of_read]
    weights = [[weight * array.redundancy for weight in of_value], of_value]
    found = (bounds, chosen, weights, table, held[:, 0], reads, limits)
    return _Tables(*(np.ascontiguousarray(each, dtype=np.float32) for each in found))


def _steps(choice: Choice) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Magnitudes of what is missing from which on another digit is chosen, and the digits between them."""
    digits = choice.digits.numpy()
    ends = np.flatnonzero(np.diff(digits)) + 1
    return (ends - 0.5) * choice.step, digits[[0, *ends]]
