"""Single tokens of K or V, written one after the other in few operations of PyTorch, with the bits of `write_folded`.

Shapes: B samples, R heads, d features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.codes.codec import Codec
from ohmformer.array.degradation import compensation
from ohmformer.array.peripherals.spec import mismatched
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.device import noise
from ohmformer.streams import Stream


@dataclass(frozen=True, eq=False)
class SingleTokens:
    """What is the same for all tokens that an array writes one after the other.

    Attributes:
        array: the hardware.
        slices: of each value, copies included.
        ranges: the value of the largest code; broadcasts against tokens [B, R, 1, d].
        unit: the value of one code.
        streams: keys of the write noise of each sample, whose children are those of its tokens.
    """

    array: Crossbar
    slices: int
    ranges: Tensor
    unit: Tensor
    streams: tuple[Stream, ...]

    @staticmethod
    def of(array: Crossbar, codec: Codec, ranges: Tensor, streams: tuple[Stream, ...]) -> SingleTokens | None:
        """What is the same for all tokens; None if `write_folded` does more than write magnitudes with noise.

        Args:
            array: the hardware.
            codec: turns tokens into codes.
            ranges: the value of the largest code.
            streams: of each sample.
        """
        cell, largest = array.aged_cell, array.max_code
        if codec.clips or not codec.rounded or codec.round_last or cell.uneven or array.residual is not None:
            return None
        if not one_sided(array) or noise.silent(cell) or mismatched(array) or compensation.compensates(array):
            return None
        slices = array.slices(None)
        if array.write_verify is not None or codec.array.max_code != largest or array.capacity(slices) < largest:
            return None
        if not bool(((ranges >= 0) & (ranges < math.inf)).all()):
            return None
        children = tuple(stream.child("cell", "write") for stream in streams)
        return SingleTokens(array, slices, ranges, encoding.unit_of(ranges, largest), children)

    def __call__(self, tokens: Tensor, numbers: tuple[int, ...]) -> Tensor:
        """What the cells of tokens [B, R, 1, d] with these numbers hold, in values.

        Raises:
            BadInput: a value is NaN or infinite.
        """
        array, cell, top = self.array, self.array.aged_cell, self.array.max_code
        if not math.isfinite(tokens.sum().item()):
            raise encoding.unusable("a matrix to be programmed", self.ranges)
        codes = (tokens / self.unit).round_().clamp_(-top, top)
        generators = [
            torch.Generator().manual_seed(stream.child("token", n).seed)
            for stream, n in zip(self.streams, numbers, strict=True)
        ]
        total, step, g_min = None, array.step, cell.g_min
        for s, digits in enumerate(encoding.slice_digits(codes.abs(), array, self.slices)):
            eps = torch.empty_like(codes)
            for row, generator in zip(eps.unbind(0), generators, strict=True):
                row.normal_(generator=generator)
            g = noise.write(encoding.target_conductances(digits, array), cell, eps)
            held = g.sub_(g_min).div_(step).mul_(float(array.slice_weight(s)))
            total = held if total is None else total.add_(held)
        assert total is not None
        return encoding.mean_over_copies_(total, array).mul_(codes.sign()).mul_(self.unit)
