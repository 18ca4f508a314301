"""The `cell` level: every device, cycle, slice and conversion on its own. Slow, and written to be obviously correct.

It shares nothing with the faster levels but the encoding of operands and the converter, and it counts what it does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array import encoding, event_counter
from ohmformer.array.converters import Range, at_slice, convert_
from ohmformer.array.crossbar import Programmed
from ohmformer.array.spec import Crossbar
from ohmformer.device import noise
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
                    place = weight * array.place(s)
                    where = stream and stream.child(m, z, s, first)
                    read = _one_read(planes[z][..., m, rows], programmed, s, rows, where, at_slice(span, s))
                    total = total + place * read
        vectors.append(total / array.copies)
    return torch.stack(vectors, dim=-2)


def _one_read(
    volts: Tensor, programmed: Programmed, s: int, rows: slice, stream: Streams | None, span: Range
) -> Tensor:
    """One vector [..., R] applied to one slice of one row block: read, converted and subtracted: [..., O]."""
    array = programmed.array
    plus = _currents(volts, *_columns(programmed, 0, s, rows), array, stream and stream.child("plus"))
    minus = _currents(volts, *_columns(programmed, 1, s, rows), array, stream and stream.child("minus"))
    counter = event_counter.current()
    if counter is not None:
        matrices = plus.numel() // plus.shape[-1]
        counter.activations += matrices * -(-programmed.outputs // array.columns) * array.polarities
        counter.adc_conversions += plus.numel() + (minus.numel() if array.subtract == "digital" else 0)
    if array.subtract == "digital":
        plus, minus = convert_(plus, array.adc, span), convert_(minus, array.adc, span)
    if programmed.reference is not None:
        minus = programmed.by_output(minus, -1)
    return convert_(plus - minus, array.adc, span) if array.subtract == "analog" else plus - minus


def _columns(programmed: Programmed, side: int, s: int, rows: slice) -> tuple[Tensor, Tensor | None]:
    """Digits [..., O or C, R] in the columns of a side, and before drift: a half of a pair, or cells and reference."""
    cells, written = programmed.cells[:, s], None if programmed.written is None else programmed.written[:, s]
    if programmed.reference is None or side == 0:
        return cells[side][..., rows], None if written is None else written[side][..., rows]
    then = programmed.reference_written
    return programmed.reference[s][..., rows], None if then is None else then[s][..., rows]


def _currents(volts: Tensor, cells: Tensor, written: Tensor | None, array: Crossbar, stream: Streams | None) -> Tensor:
    """Currents [..., O] of the columns of one block, each device [..., O, R] read with noise of its own."""
    devices = torch.broadcast_shapes(volts.unsqueeze(-2).shape, cells.shape)
    counter = event_counter.current()
    if counter is not None:
        counter.cell_reads += torch.Size(devices).numel()
    if stream is not None and not noise.exact_reads(array.cell):
        g = array.cell.g_min + array.step * cells.expand(devices)
        then = None if written is None else array.cell.g_min + array.step * written.expand(devices)
        eps = stream.normal(*devices, like=cells)
        cells = (noise.read(g, array.cell, eps, age=array.age, written=then) - array.cell.g_min) / array.step
    return (volts.unsqueeze(-2) * cells).sum(-1)
