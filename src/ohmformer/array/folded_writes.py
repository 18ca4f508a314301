"""Writing a matrix into crossbars whose slices and polarities are summed at once.

Shapes: O outputs, I inputs; `...` are matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Unpack

import torch
from torch import Tensor

from ohmformer.array import crossbar, encoding
from ohmformer.array.crossbar import WriteOptions, WriteRequest
from ohmformer.array.degradation import compensation
from ohmformer.array.folded import Folded, SliceSum, difference, fold, pair
from ohmformer.array.kernels.writes import cell_writes, folded_write, residual_writes
from ohmformer.array.peripherals.spec import mismatched
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import Held, one_sided
from ohmformer.device import noise
from ohmformer.streams import Stream
from ohmformer.streams.sources import BLOCK

LARGE = 2**24
"""Values from which a matrix is written some outputs at a time."""
PART = 2**22
"""About how many values are written at a time then."""


@torch.no_grad()
def write_folded(
    values: Tensor, array: Crossbar, *, read_noise: bool = True, **options: Unpack[WriteOptions]
) -> Folded:
    """The same numbers as `fold(write(values, array, ...))`, without the memory for the cells of all slices.

    Args:
        values: [..., O, I] values for the option `codec`, or codes, as in `write`.
        array: the hardware.
        read_noise: compute the variances of reads, too; the readings that compensate drift then have read noise.
        options: see `WriteOptions`.

    Raises:
        BadInput: as in `write`.
    """
    request = crossbar.write_request(values, array, **options)
    cells = _write_cells(request, read_noise)
    if not compensation.compensates(array):
        return cells
    new = _write_cells(replace(request, array=compensation.when_new(array)), read_noise)
    factor = compensation.factor(new, cells, array, request.stream)
    variance = None if cells.variance is None else cells.variance * factor**2
    return replace(cells, values=cells.values * factor, variance=variance, unit=cells.unit * factor)


def _write_cells(request: WriteRequest, read_noise: bool) -> Folded:
    """`write_folded` without a compensation of drift."""
    array = request.array
    if mismatched(array):  # every slice of every side has converters of its own
        return fold(crossbar.write_uncompensated(request), read_noise=read_noise)
    if array.residual is not None:
        fuses = residual_writes.fusible(request)
        return (residual_writes.written if fuses else _write_residually)(request, read_noise)
    if cell_writes.fusible(request, read_noise):
        return cell_writes.written(request, read_noise)
    if folded_write.fusible(request, read_noise):
        return folded_write.written(request)
    if one_sided(array):
        return _write_magnitudes(request, read_noise)
    codes, slices, writer = request.codes, request.slices, request.writer("cell")
    sums = [SliceSum(array, read_noise) for _ in range(2)]
    for digits in encoding.signed_digits(codes, array, slices):
        held = writer.write(digits)
        for p in range(array.polarities):
            sums[p].add(held.at(p))
    if array.encoding == "offset":
        writer = request.writer("reference")
        for digits in crossbar.reference_targets(codes, array, slices):
            sums[1].add(writer.write(digits).at(0))
    return replace(difference(sums[0], sums[1], array, request.unit), slices=slices)


def _write_residually(request: WriteRequest, read_noise: bool) -> Folded:
    """`write_folded` for arrays with `residual`."""
    plus, minus = (SliceSum(request.array, read_noise) for _ in range(2))
    writer = request.writer("cell")
    for s, held in request.residual_slices(writer, writer.write_and_read_back):
        plus.add(held.at(0), s=s)
        minus.add(held.at(1), s=s)
    return replace(difference(plus, minus, request.array, request.unit), slices=request.slices)


def _write_magnitudes(request: WriteRequest, read_noise: bool) -> Folded:
    """`write_folded` for pairs whose unused half stays at G_min exactly: that half contributes only read noise."""
    if _by_rows(request, read_noise):
        return _write_rows(request)
    codes, unit, writer = request.codes, request.unit, request.writer("cell")
    used, unused = SliceSum(request.array, read_noise), SliceSum(request.array, read_noise)
    for digits in encoding.slice_digits(codes.abs().unsqueeze(0), request.array, request.slices):
        used.add(writer.write(digits).at(0))
        unused.add(Held(codes.new_zeros(())))
    magnitude, variance = used.mean_()
    _, unused_variance = unused.mean_()
    cells = pair(magnitude.mul_(codes.sign()).mul_(unit), variance, unused_variance, unit)
    return replace(cells, slices=request.slices)


def _by_rows(request: WriteRequest, read_noise: bool) -> bool:
    """True if a matrix is so large that its outputs are written some at a time, and this draws the same numbers."""
    codes, array = request.codes, request.array
    if codes.dim() != 2 or codes.numel() < LARGE or codes.device.type != "cpu" or request.major != "outputs":
        return False
    exact = not read_noise or noise.exact_reads(array.cell)
    return exact and isinstance(request.stream, Stream) and codes.shape[-1] >= BLOCK


def _write_rows(request: WriteRequest) -> Folded:
    """`_write_magnitudes` of a large matrix without read noise, in the memory of the matrix and of some outputs.

    A generator gives the same numbers in pieces, as long as their sizes are multiples of `BLOCK`.
    """
    codes, array, unit, writer = request.codes, request.array, request.unit, request.writer("cell")
    rows = max(BLOCK, PART // codes.shape[-1] // BLOCK * BLOCK)
    total = torch.empty_like(codes)
    parts = list(zip(codes.split(rows), total.split(rows), strict=True))
    for s in range(request.slices):
        weight = float(array.slice_weight(s))
        for some_codes, some_total in parts:
            digits = next(islice(encoding.slice_digits(some_codes.abs().unsqueeze(0), array, request.slices), s, None))
            writer.next_slice = s
            held = writer.write(digits).at(0).digits
            if s:
                some_total.add_(held, alpha=weight)
            else:
                torch.mul(held, weight, out=some_total)
    encoding.mean_over_copies_(total, array)
    for some_codes, some_total in parts:
        some_total.mul_(some_codes.sign())
    return Folded(total.mul_(unit), None, None, unit, slices=request.slices)
