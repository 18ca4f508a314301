"""Fast writes for training: the distribution of `write_folded`, from fewer random numbers.

If no cell of a value comes near a bound of its conductance, the noise of all its cells is one normal number; otherwise
each cell has its own. The random numbers differ from those of `write_folded`, so evaluation never uses this.

Shapes: O outputs, I inputs, S slices (copies included), K magnitudes of codes; `...` are matrices that share one call,
such as samples and heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Unpack

import torch
from torch import Tensor

from ohmformer.array import crossbar, encoding
from ohmformer.array.chunking import pieces
from ohmformer.array.crossbar import WriteOptions, WriteRequest
from ohmformer.array.folded import Folded
from ohmformer.array.gaussian_writes.moments import gaussian_pairs, means_and_stds, of_whole_values
from ohmformer.array.kernels.writes import cell_writes
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.device import noise

FAR = 4.0
"""Standard deviations between a level and a bound of the conductance from which on the clamp is negligible: it moves
the mean of such a cell by less than phi(4) - 4 Q(4) = 7e-6 of its standard deviation."""


def writable(array: Crossbar) -> bool:
    """True if `write_normal` supports the array.

    It supports pairs that are written once with Gaussian noise, without drift and its compensation, faults, wear,
    losses in wires, mismatch of converters and residual writing. If the clamp matters, the unused half of a pair must
    also be free of noise.
    """
    return gaussian_pairs(array) and (one_sided(array) or clamp_is_negligible(array))


def clamp_is_negligible(array: Crossbar) -> bool:
    """True if what every noisy level holds lies `FAR` standard deviations from the bounds of the conductance."""
    cell = array.aged_cell
    g, ceiling = encoding.level_conductances(array), math.inf if cell.g_ceiling is None else cell.g_ceiling
    std, mean = noise.write_std(g, cell), noise.write_mean(g, cell)
    return bool((std == 0).logical_or_(torch.minimum(mean, ceiling - mean) >= FAR * std).all())


@torch.no_grad()
def write_normal(values: Tensor, array: Crossbar, **options: Unpack[WriteOptions]) -> Folded:
    """The distribution of `write_folded(values, array, read_noise=False, ...)`; only for arrays that are `writable`.

    Args:
        values: [..., O, I] values for the option `codec`, or integer codes.
        array: the hardware.
        options: see `WriteOptions`.

    Raises:
        BadInput: as in `write`.
    """
    request = crossbar.write_request(values, array, **options)
    if noise.silent(array.aged_cell) and not array.cell.uneven:
        return Folded(request.codes * request.unit, None, None, request.unit)
    compiles = cell_writes.fusible(request, read_noise=False)
    if clamp_is_negligible(array):
        values = cell_writes.normals_written(request) if compiles else _one_normal_per_value(request)
    elif compiles:
        return cell_writes.written(request, read_noise=False)
    else:
        values = _one_normal_per_cell(request)
    return Folded(values.mul_(request.unit), None, None, request.unit)


def _one_normal_per_value(request: WriteRequest) -> Tensor:
    """What the cells of each value hold together, in codes [..., O, I], from one normal number each."""
    array = request.array
    held, table = (t.to(request.codes) for t in of_whole_values(array, request.slices))
    biased = array.cell.uneven or not noise.mean_is_target(array.aged_cell)
    normals = request.writer("cell").normal(request.codes.unsqueeze(0))[0]
    for code, number in _pieces(request, [normals]):
        magnitude = _magnitude(code)
        mean = _looked_up(held, magnitude).mul_(code.sign()) if biased else code
        number.mul_(_looked_up(table, magnitude)).add_(mean)
    return normals


def _one_normal_per_cell(request: WriteRequest) -> Tensor:
    """What the cells of each value hold together, in codes [..., O, I], where each cell is clamped on its own."""
    array = request.array
    means, stds = (table.to(request.codes) for table in means_and_stds(array, request.slices))
    low = -array.cell.g_min / array.step
    high = None if array.cell.g_ceiling is None else (array.cell.g_ceiling - array.cell.g_min) / array.step
    writer = request.writer("cell")
    normals = [writer.normal(request.codes.unsqueeze(0))[0] for _ in range(request.slices)]
    for code, *numbers in _pieces(request, normals):
        magnitude = _magnitude(code)
        for s, number in enumerate(numbers):
            number.mul_(_looked_up(stds[s], magnitude)).add_(_looked_up(means[s], magnitude)).clamp_(low, high)
            if s:
                numbers[0].add_(number, alpha=array.slice_weight(s))
        encoding.mean_over_copies_(numbers[0], array).mul_(code.sign())
    return normals[0]


def _pieces(request: WriteRequest, normals: list[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Codes [..., O, I] and the normals drawn for them, in pieces, in the order in which the normals were drawn."""
    codes, *normals = (t.transpose(-2, -1) if request.major == "inputs" else t for t in (request.codes, *normals))
    return pieces(codes.contiguous(), *normals)


def _magnitude(codes: Tensor) -> Tensor:
    """Magnitudes of integer codes, as indices of a table."""
    return codes.abs().to(torch.int32)


def _looked_up(table: Tensor, index: Tensor) -> Tensor:
    """table[index]; `index_select` is the faster way if the index is contiguous."""
    return table.index_select(0, index.view(-1)).view(index.shape) if index.is_contiguous() else table[index]
