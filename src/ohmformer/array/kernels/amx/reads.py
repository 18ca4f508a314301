"""Products of cells that are read with noise, or behind converters, on the matrix units of a CPU.

Shapes: M input vectors, O outputs, I inputs; `...` are matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohmformer.array import converters, encoding
from ohmformer.array.kernels.amx.factors import (
    PARTS,
    TILES,
    VARIANCE_PARTS,
    Factor,
    expanded,
    left,
    matched,
    multiply,
    right,
)  # fmt: skip
from ohmformer.array.kernels.reads import Numbers, numbers_of
from ohmformer.array.programmed import Keeps, Programmed
from ohmformer.streams import Streams

if TYPE_CHECKING:
    from ohmformer.array.folded import Folded

SMALLEST = 2.0**-50
"""The smallest value of one code of a matrix times that of an input, for which variances are numbers of tiles."""
Read = tuple[Factor, Factor | None, int, int, Streams | None, tuple[float, ...]]
"""Cells, their variances, the matrix of the inputs, the row block, the key of the noise, and what `reads_amx` takes as
scale."""


def converted_product(
    codes: Tensor, programmed: Programmed, *, signed: bool, stream: Streams | None, span: converters.Range
) -> Tensor:
    """`reads.converted_product` of whole codes that are `factors.exact`, with the same random numbers.

    Currents are rounded in another way, so results differ by the rounding of floating-point numbers, and where it moves
    a code of a converter.
    """
    array = programmed.array
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    inputs = [matched(plane, tuple(programmed.digits.shape[2:-2])) for plane in planes]
    lead, each = inputs[0][1], len(inputs[0][0])
    all_codes = inputs[0][0] if len(inputs) == 1 else torch.cat([plane for plane, _ in inputs])
    reads: list[Read] = []
    for block, first in enumerate(range(0, programmed.inputs, array.rows)):
        for s in range(programmed.slices):
            scale = converters.code_scale(int(array.adc.bits), converters.at_slice(span, s))
            for z, weight in enumerate(weights):
                for k, side in enumerate(programmed.sides[s]):
                    cells = _kept(side, "cells", side.digits, lead, array.rows, PARTS)
                    noise = None if stream is None or side.variance is None else stream.child("read", z, s, first, k)
                    variance = None
                    if noise is not None and side.variance is not None:
                        variance = _kept(side, "variance", side.variance, lead, array.rows, VARIANCE_PARTS)
                    signed_weight = float(side.sign * weight * array.slice_weight(s))
                    reads.append((cells, variance, z * each, block, noise, (*scale, signed_weight)))
    out = codes.new_empty((*lead, codes.shape[-2], programmed.outputs))
    _read(out, all_codes, reads, array.rows, squared=array.inputs.kind != "bit_serial", converts=True)
    return encoding.mean_over_copies_(out, array)


def in_range(cells: Folded, unit: float) -> bool:
    """True if the numbers of a folded matrix times the value of an input code are no smaller than tiles hold.

    Tiles count numbers below 2^-126 as zero, and variances are about the square of the value of one code.
    """
    smallest: float = cells.kept("smallest unit", lambda: float(cells.unit.min()) if cells.unit.numel() else 1.0)
    return smallest * unit >= SMALLEST


def folded_product(
    codes: Tensor, cells: Folded, unit: float, *, stream: Streams | None = None, bias: Tensor | None = None
) -> Tensor:
    """Input codes times their value and a folded matrix: a new tensor [..., M, O].

    Args:
        codes: whole numbers [..., M, I] that are `factors.exact`.
        cells: the matrix, without columns of references, and `in_range`.
        unit: the value of one code.
        stream: key of the noise of reads; None for reads without noise.
        bias: added to the results [O]; only for reads without noise.
    """
    I, O = cells.values.shape[-1], cells.values.shape[-2]
    inputs, lead = matched(codes, tuple(cells.values.shape[:-2]))
    values = _kept(cells, "values", cells.values, lead, I, PARTS, unit)
    out = codes.new_empty((*lead, codes.shape[-2], O))
    if stream is None or cells.variance is None:
        return multiply(left(inputs, I), values, out, bias)
    variance = _kept(cells, "variance", cells.variance, lead, I, VARIANCE_PARTS, unit * unit)
    read: Read = (values, variance, 0, 0, stream.child("read"), (0.0,) * 5)
    _read(out, inputs, [read], I, squared=True, converts=False)
    return out


def _kept(
    held: Keeps, name: str, matrix: Tensor, lead: tuple[int, ...], rows: int, parts: int, factor: float = 1.0
) -> Factor:
    """A matrix as right factor, which is kept beside it."""
    lead = lead if prod(matrix.shape[:-2]) > 1 else ()
    return held.kept((name, lead, rows, factor), lambda: right(expanded(matrix, lead), rows, parts, factor))


def _read(out: Tensor, codes: Tensor, reads: list[Read], rows: int, *, squared: bool, converts: bool) -> None:
    """Write the sum of reads of input codes [N, M, I], see `reads_amx.read`."""
    from ohmformer.array.kernels.amx import reads_amx

    x = left(codes, rows)
    noisy = any(stream is not None for *_, stream, _ in reads)
    powers = left(codes, rows, squared=True) if squared and noisy else x
    numbers: list[Numbers] = [_no_numbers(out) if s is None else numbers_of(s, out.shape) for *_, s, _ in reads]
    table = [
        (
            cells.address, 0 if variance is None else variance.address, plane, block * x.steps,
            normals.ctypes.data if normals.size else 0, nth,
        )
        for (cells, variance, plane, block, _, _), (normals, _, nth) in zip(reads, numbers, strict=True)
    ]  # fmt: skip
    (cells, *_), variances = reads[0], [variance for _, variance, *_ in reads if variance is not None]
    M, O = codes.shape[1], cells.shape[1]
    N = out.numel() // max(1, M * O)
    between = cells.between, variances[0].between if variances else 0
    sizes: NDArray[np.int64] = np.array((N, M, O, x.whole, x.steps, *between), np.int64)
    scales: NDArray[np.float32] = np.array([scale for *_, scale in reads], np.float32)
    places = np.stack([each for _, each, _ in numbers])
    at = out.data_ptr(), x.address, powers.address
    reads_amx.read(*at, sizes, np.array(table, np.int64), scales, places, converts, TILES)


def _no_numbers(out: Tensor) -> Numbers:
    return np.empty(0, np.float32), np.zeros((1, 7), np.int64), 0
