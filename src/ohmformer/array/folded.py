"""A written matrix as one tensor of values: slices and polarities summed.

This is enough if no converter stands between slices and polarities, as with ideal converters.

Shapes: P polarities, S slices, M input vectors, O outputs, I inputs, C column blocks (reference columns); `...` are
matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from ohmformer.array import crossbar, encoding, event_counter
from ohmformer.array.crossbar import Folded as Folded
from ohmformer.array.crossbar import SliceSum, WriteOptions, WriteRequest, difference, pair
from ohmformer.array.crossbar import fold as fold
from ohmformer.array.degradation import compensation
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import Held, one_sided
from ohmformer.errors import BadInput
from ohmformer.streams import Streams


@torch.no_grad()
def write_folded(codes: Tensor, array: Crossbar, *, read_noise: bool = True, **options: Unpack[WriteOptions]) -> Folded:
    """The same numbers as `fold(write(codes, array, ...))`, without the memory for the cells of all slices.

    Args:
        codes: integer codes [..., O, I].
        array: the hardware.
        read_noise: compute the variances of reads, too; the readings that compensate drift then have read noise.
        options: see `WriteOptions`.

    Raises:
        BadInput: as in `write`.
    """
    held = _write_cells(codes, array, read_noise, **options)
    if not compensation.compensates(array):
        return held
    with event_counter.counting():  # these are the cells of `held`, whose writes count once
        new = _write_cells(codes, compensation.when_new(array), read_noise, **options)
    factor = crossbar.compensation_factor(new, held, array, options.get("stream", 0))
    variance = None if held.variance is None else held.variance * factor**2
    return replace(held, weight=held.weight * factor, variance=variance, unit=held.unit * factor)


def _write_cells(codes: Tensor, array: Crossbar, read_noise: bool, **options: Unpack[WriteOptions]) -> Folded:
    """`write_folded` without a compensation of drift."""
    request = crossbar.write_request(codes, array, **options)
    if one_sided(array):
        return _write_magnitudes(request, read_noise)
    codes, slices, writer = request.codes, request.slices, request.writer("cell")
    sums = [SliceSum(array, read_noise) for _ in range(2)]
    for digits in encoding.digits(codes, array, slices):
        held = writer.write(digits)
        for p in range(array.polarities):
            sums[p].add(held.at(p))
    if array.encoding == "offset":
        writer = request.writer("reference")
        for target in crossbar.reference_targets(codes, array, slices):
            sums[1].add(writer.write(target).at(0))
    return difference(sums[0], sums[1], array, request.unit)


def _write_magnitudes(request: WriteRequest, read_noise: bool) -> Folded:
    """`write_folded` for pairs whose unused half stays at G_min exactly: that half contributes only read noise."""
    codes, unit, writer = request.codes, request.unit, request.writer("cell")
    used, unused = SliceSum(request.array, read_noise), SliceSum(request.array, read_noise)
    for digits in encoding.slice_digits(codes.abs().unsqueeze(0), request.array, request.slices):
        used.add(writer.write(digits).at(0))
        unused.add(Held(codes.new_zeros(())))
    magnitude, variance = used.mean_()
    _, unused_variance = unused.mean_()
    return pair(magnitude.mul_(codes.sign()).mul_(unit), variance, unused_variance, unit)


def folded_product(codes: Tensor, folded: Folded, array: Crossbar, stream: Streams | None) -> Tensor:
    """Multiply integer inputs by a folded matrix; the read noise of all cells of an output is one Gaussian.

    Args:
        codes: inputs [..., M, I].
        folded: the matrix [..., O, I].
        array: the hardware.
        stream: key of the read noise; None if the matrix has none.

    Returns:
        Results [..., M, O], in values of the matrix times input units.

    Raises:
        BadInput: the cells have read noise and no stream is given.
    """
    y = codes @ folded.weight.transpose(-2, -1)
    if folded.variance is None:
        return y
    if stream is None:
        raise BadInput("the cells have read noise but no stream was given; pass stream=Stream(seed, ...) or an integer")
    power = encoding.read_power(codes, array)
    std = (power @ folded.variance.transpose(-2, -1)).sqrt_()
    y = y.addcmul_(std, stream.child("read").normal(*std.shape, like=std))
    if folded.reference_variance is not None:
        std = (power @ folded.reference_variance.transpose(-2, -1)).sqrt_()
        shared = std.mul_(stream.child("read reference").normal(*std.shape, like=std))
        shared = shared.repeat_interleave(array.columns, dim=-1)[..., : y.shape[-1]]
        y = y.addcmul_(shared, folded.unit.transpose(-2, -1), value=-1)
    return y
