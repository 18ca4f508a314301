"""The `cell` level of fidelity: every device, input cycle, slice and conversion is simulated on its own.

It is slow and written to be obviously correct. It shares only the encoding of operands, the mismatch
of converters and their rounding with the faster levels, and it counts the events that it simulates.

Shapes: M input vectors, O outputs, I inputs, R rows of one block, C column blocks (reference columns), S slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor

from ohmformer.array import encoding, event_counter
from ohmformer.array.converters import Range, at_slice, convert_
from ohmformer.array.kernels import cell_reads
from ohmformer.array.peripherals.pulses import Pulse, drive
from ohmformer.array.peripherals.read_keys import of_devices, of_one_result, of_vector
from ohmformer.array.programmed import Programmed
from ohmformer.array.spec import Crossbar
from ohmformer.device import noise
from ohmformer.streams import Streams

VALUES = 1 << 20
"""Largest number of devices whose reads are computed together, if that is more than one input vector."""
VALUES_OF_LOOP = 1 << 26
"""The same for a compiled loop, which keeps no number for each device."""


def product(codes: Tensor, programmed: Programmed, *, signed: bool, stream: Streams | None, span: Range) -> Tensor:
    """Multiply integer inputs by a programmed matrix.

    Args:
        codes: inputs [..., M, I].
        programmed: the matrix [..., O, I].
        signed: as in `mvm`.
        stream: key of the noise of reads; None for reads without noise.
        span: range of the converters, in digits times input units.

    Returns:
        Results [..., M, O] in code units.
    """
    array, M = programmed.array, codes.shape[-2]
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    matrices = max(prod(codes.shape[:-2]), prod(programmed.digits.shape[2:-2]))
    values = VALUES_OF_LOOP if stream is not None and cell_reads.fusible(codes, stream) else VALUES
    together = max(1, values // (matrices * programmed.outputs * min(array.rows, programmed.inputs)))
    results = []
    for start in range(0, max(1, M), together):
        vectors = range(start, min(M, start + together))
        by_vector = [] if stream is None else [of_vector(stream, m, M) for m in vectors]
        total = torch.zeros((), dtype=codes.dtype, device=codes.device)
        for z, weight in enumerate(weights):
            keys = None if stream is None else [key.child(z) for key in by_vector]
            pulses = drive(planes[z][..., vectors.start : vectors.stop, :], array, z, signed=signed, streams=keys)
            for s in range(programmed.slices):
                for first in range(0, programmed.inputs, array.rows):
                    rows = slice(first, first + array.rows)
                    streams = None if stream is None else [key.child(z, s, first) for key in by_vector]
                    block = [(w, reads, pulse[..., rows]) for w, reads, pulse in pulses]
                    read = (codes[..., vectors.start : vectors.stop, rows] != 0).any(-1, keepdim=True)
                    result = _one_conversion(block, read, programmed, s, rows, streams, at_slice(span, s))
                    total = total + weight * array.slice_weight(s) * result
        results.append(total / array.redundancy)
    return torch.cat(results, dim=-2)


def _one_conversion(
    pulses: list[Pulse],
    read: Tensor,
    programmed: Programmed,
    s: int,
    rows: slice,
    streams: Sequence[Streams] | None,
    span: Range,
) -> Tensor:
    """Apply pulses [..., M, R] to slice s of one row block, convert, and subtract: [..., M, O].

    `read` [..., M, 1] is False for vectors without an input in this block. `streams` has one stream for each vector;
    None for reads without noise.
    """
    array = programmed.array
    sides = []
    for k, side in enumerate(("plus", "minus")):
        of_side: Sequence[Streams] | None = None
        if streams is not None:
            reference = array.columns if k and programmed.reference is not None else 0
            keys = [stream.child(side) for stream in streams]
            of_side = [of_devices(key, rows.start, array.rows, reference=reference) for key in keys]
        std = None if programmed.read_std is None else programmed.read_std[k, s, ..., rows]
        ages = programmed.minus_ages if k else programmed.ages
        ages = ages if ages is None or ages.shape[-1] == 1 else ages[..., rows]
        columns = _columns(programmed, k, s, rows)
        currents = []
        for n, (weight, reads, applied) in enumerate(pulses):
            of_pulse = of_side
            if of_side is not None and len(pulses) > 1:
                of_pulse = [stream.child("pulse", n) for stream in of_side]
            currents.append(weight * _currents(applied, *columns, array, of_pulse, reads, std, ages))
        sides.append(sum(currents[1:], currents[0]))
    plus, minus = sides
    counter = event_counter.current()
    if counter is not None:
        matrices = plus.numel() // plus.shape[-1]
        blocks = -(-programmed.outputs // array.columns)
        counter.activations += len(pulses) * matrices * blocks * array.polarities
        counter.adc_conversions += plus.numel() + (minus.numel() if array.subtract == "digital" else 0)
    converters = _Converters(programmed, s, rows.start // array.rows, read, streams, span)
    if array.subtract == "digital":
        plus, minus = converters.convert(plus, 0), converters.convert(minus, 1)
    if programmed.reference is not None:
        minus = programmed.by_output(minus, -1)
    return converters.convert(plus - minus, 0) if array.subtract == "analog" else plus - minus


@dataclass(frozen=True)
class _Converters:
    """The converters of slice s of one row block; the other attributes are arguments of `_one_conversion`."""

    programmed: Programmed
    s: int
    block: int
    read: Tensor
    streams: Sequence[Streams] | None
    span: Range

    def convert(self, current: Tensor, side: int) -> Tensor:
        """Convert the currents [..., M, O or C] of a side, with gain, offset and noise of each converter."""
        array, mismatch = self.programmed.array, self.programmed.mismatch
        parts, width = array.peripherals, self.span[1] - self.span[0]
        if mismatch is not None:
            gain, offset = mismatch.of_side(side, self.s)[..., None, :, self.block]
            current = current * (1 + gain) + self.read * width * offset
        if self.streams is not None and parts.output_noise:
            *lead, _, O = current.shape
            reference = array.columns if side and self.programmed.reference is not None else 0
            keys = [of_one_result(stream.child("output", side), reference=reference) for stream in self.streams]
            drawn = [key.normal(*lead, 1, O, like=current) for key in keys]
            eps = torch.cat(drawn, dim=-2) if drawn else torch.empty_like(current)
            current = current + self.read * width * parts.output_noise * eps
        return convert_(current, array.adc, self.span)


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
        digits, written = (
            programmed.digits[side, s],
            None if programmed.written is None else programmed.written[side, s],
        )
    else:
        before = programmed.reference_written
        digits, written = programmed.reference[s], None if before is None else before[s]
    return digits[..., rows], None if written is None else written[..., rows]


def _currents(
    applied: Tensor,
    digits: Tensor,
    written: Tensor | None,
    array: Crossbar,
    streams: Sequence[Streams] | None,
    reads: int,
    std: Tensor | None,
    ages: Tensor | None,
) -> Tensor:
    """Column currents [..., M, O] of one block, where each device [..., O, R] is read with its own noise.

    They are the mean of `reads` reads, whose noise is one Gaussian. `std` [..., O, R] is the standard deviation of one
    read in digits, behind wires that lose voltage; otherwise it follows from the digits.
    """
    counter, lead = event_counter.current(), torch.broadcast_shapes(applied.shape[:-2], digits.shape[:-2])
    if counter is not None:
        counter.cell_reads += prod(lead) * applied.shape[-2] * digits.shape[-2:].numel()
    if streams is None or noise.exact_reads(array.cell):
        return (applied.unsqueeze(-2) * digits.unsqueeze(-3)).sum(-1)
    spread = (_read_std(digits, written, array, ages) if std is None else std) / sqrt(reads)
    if streams and cell_reads.fusible(applied, streams[0]):
        return cell_reads.currents(applied, digits, spread, streams)
    drawn = [stream.normal(*lead, *digits.shape[-2:], like=digits) for stream in streams]
    eps = torch.stack(drawn, dim=-3) if drawn else digits.new_empty(*lead, 0, *digits.shape[-2:])
    read = torch.addcmul(digits.unsqueeze(-3), spread.unsqueeze(-3), eps)
    return (applied.unsqueeze(-2) * read).sum(-1)


def _read_std(digits: Tensor, written: Tensor | None, array: Crossbar, ages: Tensor | None) -> Tensor:
    """Standard deviation of one read of each device [..., O, R], in digits; arguments as in `_currents`."""
    cell, step = array.cell, array.step
    g, g_written = cell.g_min + step * digits, None if written is None else cell.g_min + step * written
    if ages is None:
        return noise.read_std(g, cell, age=array.age, written=g_written) / step
    return noise.read_std_by_age(g, cell, ages, written=g_written) / step
