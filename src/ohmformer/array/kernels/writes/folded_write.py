"""Writes of folded matrices where slicing, write noise, its clamp and the sum over slices are one kernel.

The plain code (`array/folded_writes.py`) takes about ten launches for each slice.

Shapes: P polarities with random numbers of their own, O outputs, I inputs, S slices (copies included), K magnitudes of
codes; `...` are matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

import math

import torch

from ohmformer.array.crossbar import WriteRequest
from ohmformer.array.folded import Folded
from ohmformer.array.gaussian_writes.moments import means_and_stds
from ohmformer.array.gaussian_writes.one_number import writable
from ohmformer.array.writing import one_sided
from ohmformer.device import noise
from ohmformer.streams.backends import has_kernels
from ohmformer.streams.places import sent


def fusible(request: WriteRequest, read_noise: bool) -> bool:
    """True if `written` supports the write, and the device has kernels.

    It supports the arrays of `one_number.writable` in float32, where the variances of reads are not needed.
    A value with one slice is left to the plain code: its code may be any number.
    """
    array = request.array
    if not has_kernels(request.codes.device) or request.codes.dtype is not torch.float32:
        return False
    needless = not read_noise or noise.exact_reads(array.cell)
    return needless and request.slices > array.redundancy and not noise.silent(array.aged_cell) and writable(array)


def written(request: WriteRequest) -> Folded:
    """`write_folded` of a write that is `fusible`, with the same random numbers.

    Noise is added in digits, not in siemens, so results differ by the rounding of floating-point numbers.
    """
    from ohmformer.array.kernels.writes import folded_write_kernel

    array, codes, slices = request.array, request.codes, request.slices
    pairs = not one_sided(array)
    means, stds = means_and_stds(array, slices)
    weights = torch.tensor([[array.slice_weight(s)] for s in range(slices)], dtype=torch.float64)
    tables = sent(torch.stack([means, stds, weights.expand_as(means)]).float(), codes.device)
    ceiling = math.inf if array.cell.g_ceiling is None else array.cell.g_ceiling
    bounds = -array.cell.g_min / array.step, (ceiling - array.cell.g_min) / array.step
    like = codes.unsqueeze(0).expand(2 if pairs else 1, *codes.shape)
    normals = request.writer("cell").normals_of_slices(like, slices)
    flipped = request.major == "inputs"
    if flipped:  # in the order in which the normals stand
        codes, normals = codes.transpose(-2, -1), normals.transpose(-2, -1)
    held = folded_write_kernel.held(codes.contiguous(), normals, tables, bounds, array.redundancy)
    held = held.transpose(-2, -1) if flipped else held
    return Folded(held.mul_(request.unit), None, None, request.unit, slices)
