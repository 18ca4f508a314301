"""The `cell` level: every device, cycle, slice and conversion on its own. Slow, and written to be obviously correct.

It shares nothing with the faster levels but the encoding of operands, and it counts what it does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array import counts, encoding
from ohmformer.array.converters import Range, convert
from ohmformer.array.crossbar import Programmed
from ohmformer.array.spec import Crossbar
from ohmformer.device import noise
from ohmformer.device.spec import NoNoise
from ohmformer.streams import Streams


def product(codes: Tensor, programmed: Programmed, *, signed: bool, stream: Streams | None, span: Range) -> Tensor:
    """Integer inputs [..., M, I] times a programmed matrix [..., O, I], in code units: [..., M, O]."""
    array = programmed.array
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    vectors = []
    for m in range(codes.shape[-2]):
        total = torch.zeros((), dtype=codes.dtype, device=codes.device)
        for z, weight in enumerate(weights):
            for s in range(programmed.slices):
                for first in range(0, programmed.inputs, array.rows):
                    rows = slice(first, first + array.rows)
                    place = weight * 2 ** (array.bits_per_cell * s)
                    where = stream and stream.child(m, z, s, first)
                    total = total + place * _one_read(planes[z][..., m, rows], programmed, s, rows, where, span)
        vectors.append(total)
    return torch.stack(vectors, dim=-2)


def _one_read(
    volts: Tensor, programmed: Programmed, s: int, rows: slice, stream: Streams | None, span: Range
) -> Tensor:
    """One vector [..., R] applied to one slice of one row block: read, converted and subtracted: [..., O]."""
    array = programmed.array
    low, high = (end[s] if isinstance(end, Tensor) and end.dim() else end for end in span)
    plus = _column_currents(volts, programmed.cells[0, s][..., rows], array, stream and stream.child("plus"))
    other = programmed.cells[1, s] if programmed.reference is None else programmed.reference[s]
    minus = _column_currents(volts, other[..., rows], array, stream and stream.child("minus"))
    counter = counts.current()
    if counter is not None:
        matrices = plus.numel() // plus.shape[-1]
        counter.activations += matrices * -(-programmed.outputs // array.columns) * array.polarities
        counter.adc_conversions += plus.numel() + (minus.numel() if array.subtract == "digital" else 0)
    if programmed.reference is not None:
        minus = minus.repeat_interleave(array.columns, -1)[..., : plus.shape[-1]]
    if array.subtract == "analog":
        return convert(plus - minus, array.adc, (low, high))
    return convert(plus, array.adc, (low, high)) - convert(minus, array.adc, (low, high))


def _column_currents(volts: Tensor, cells: Tensor, array: Crossbar, stream: Streams | None) -> Tensor:
    """Currents [..., O] of the columns of one block, each device [..., O, R] read with noise of its own."""
    devices = torch.broadcast_shapes(volts.unsqueeze(-2).shape, cells.shape)
    counter = counts.current()
    if counter is not None:
        counter.cell_reads += torch.Size(devices).numel()
    if stream is not None and not isinstance(array.cell.read_noise, NoNoise):
        g = array.cell.g_min + array.step * cells.expand(devices)
        eps = stream.normal(*devices, like=cells)
        cells = (noise.read(g, array.cell, eps, age=array.age) - array.cell.g_min) / array.step
    return (volts.unsqueeze(-2) * cells).sum(-1)
