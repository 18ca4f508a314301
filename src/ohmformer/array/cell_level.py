"""The `cell` level of fidelity: every device, input cycle, slice and conversion is simulated on its own.

It is slow and written to be obviously correct. It shares only the encoding of operands and the converter with the
faster levels, and it counts the events that it simulates.

Shapes: M input vectors, O outputs, I inputs, R rows of one block, C column blocks (reference columns), S slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ohmformer.array import encoding, event_counter
from ohmformer.array.converters import Range, at_slice, convert_
from ohmformer.array.crossbar import Programmed
from ohmformer.array.spec import Crossbar
from ohmformer.device import noise
from ohmformer.streams import Streams

VALUES = 1 << 20
"""Largest number of devices whose reads are computed together, if that is more than one input vector."""


def product(codes: Tensor, programmed: Programmed, *, signed: bool, stream: Streams | None, span: Range) -> Tensor:
    """Multiply integer inputs by a programmed matrix.

    Args:
        codes: inputs [..., M, I].
        programmed: the matrix [..., O, I].
        signed: as in `mvm`.
        stream: key of the read noise; None for reads without noise.
        span: range of the converters, in digits times input units.

    Returns:
        Results [..., M, O] in code units.
    """
    array, M = programmed.array, codes.shape[-2]
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    matrices = max(prod(codes.shape[:-2]), prod(programmed.cells.shape[2:-2]))
    together = max(1, VALUES // (matrices * programmed.outputs * min(array.rows, programmed.inputs)))
    results = []
    for start in range(0, max(1, M), together):
        vectors = range(start, min(M, start + together))
        total = torch.zeros((), dtype=codes.dtype, device=codes.device)
        for z, weight in enumerate(weights):
            for s in range(programmed.slices):
                for first in range(0, programmed.inputs, array.rows):
                    rows = slice(first, first + array.rows)
                    keys = [(m, z, s, first) for m in vectors]
                    streams = None if stream is None else [stream.child(*key) for key in keys]
                    applied = planes[z][..., vectors.start : vectors.stop, rows]
                    result = _one_read(applied, programmed, s, rows, streams, at_slice(span, s))
                    total = total + weight * array.slice_weight(s) * result
        results.append(total / array.redundancy)
    return torch.cat(results, dim=-2)


def _one_read(
    applied: Tensor, programmed: Programmed, s: int, rows: slice, streams: Sequence[Streams] | None, span: Range
) -> Tensor:
    """Apply input vectors [..., M, R] to slice s of one row block, convert, and subtract: [..., M, O].

    `streams` has one stream for each vector; None for reads without noise.
    """
    array = programmed.array
    sides = []
    for k, side in enumerate(("plus", "minus")):
        of_side = None if streams is None else [stream.child(side) for stream in streams]
        std = None if programmed.read_std is None else programmed.read_std[k, s, ..., rows]
        sides.append(_currents(applied, *_columns(programmed, k, s, rows), array, of_side, std))
    plus, minus = sides
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
    """The digits [..., O or C, R] in the columns of one side, and the digits that they held before drift.

    Args:
        programmed: the matrix.
        side: 0 for columns that count positively, 1 for those that are subtracted (the other half of a pair, or the
            reference columns).
        s: the slice.
        rows: the row block.
    """
    if programmed.reference is None or side == 0:
        cells, written = programmed.cells[side, s], None if programmed.written is None else programmed.written[side, s]
    else:
        before = programmed.reference_written
        cells, written = programmed.reference[s], None if before is None else before[s]
    return cells[..., rows], None if written is None else written[..., rows]


def _currents(
    applied: Tensor,
    cells: Tensor,
    written: Tensor | None,
    array: Crossbar,
    streams: Sequence[Streams] | None,
    std: Tensor | None = None,
) -> Tensor:
    """Column currents [..., M, O] of one block, where each device [..., O, R] is read with its own noise.

    `std` [..., O, R] is the standard deviation of one read in digits, behind wires that lose voltage; otherwise it
    follows from the digits.
    """
    applied, cells = applied.unsqueeze(-2), cells.unsqueeze(-3)
    if streams is not None and not noise.exact_reads(array.cell):
        *lead, M, O, R = torch.broadcast_shapes(applied.shape, cells.shape)
        g = (array.cell.g_min + array.step * cells).expand(*lead, M, O, R)
        g_written = None
        if written is not None:
            g_written = (array.cell.g_min + array.step * written.unsqueeze(-3)).expand(*lead, M, O, R)
        drawn = [stream.normal(*lead, O, R, like=cells) for stream in streams]
        eps = torch.stack(drawn, dim=-3) if drawn else cells.new_empty(*lead, 0, O, R)
        if std is None:
            cells = (noise.read(g, array.cell, eps, age=array.age, written=g_written) - array.cell.g_min) / array.step
        else:
            cells = torch.addcmul(cells, std.unsqueeze(-3), eps)
    currents = applied * cells
    counter = event_counter.current()
    if counter is not None:
        counter.cell_reads += currents.numel()
    return currents.sum(-1)
