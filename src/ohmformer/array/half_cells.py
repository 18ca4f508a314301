"""A folded matrix whose values are half-precision numbers: half the memory of float32, for products in float32.

Shapes: M input vectors, O outputs, I inputs; `...` are matrices that share one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.array.folded import Folded

BLOCK_SIZE = {"cpu": 2**17}
"""Device -> values that are widened at a time: what stays in a core's cache."""
LARGE_BLOCK = 2**25
"""The same for other devices, where each block is a launch of its own."""
TOP = 2.0**15
"""Largest magnitude that is stored, below that of float16 (65,504)."""


@dataclass(frozen=True)
class HalfFolded(Folded):
    """A written matrix whose `values` are float16 numbers in units of `step`, not values.

    Each is within 2^-11 of itself from what the cells hold; whole codes up to 2,048 are exact. Products are computed in
    the type of the inputs. All else is as in `Folded`.

    Attributes:
        step: [..., O or 1, 1] value of the stored number 1: the value of one code, times a power of two where codes
            exceed the range of float16.
    """

    step: Tensor | None = None

    @property
    def matrix(self) -> Tensor:
        """[..., O, I] the values that the cells hold, in full precision: a new tensor."""
        assert self.step is not None
        return self.values.to(self.step.dtype) * self.step

    def times(self, x: Tensor) -> Tensor:
        """x[..., M, I] @ matrix.T, some outputs at a time."""
        assert self.step is not None
        size = BLOCK_SIZE.get(x.device.type, LARGE_BLOCK)
        blocks = self.values.split(max(1, size // self.values.shape[-1]), dim=-2)
        y = torch.cat([x @ block.to(x.dtype).transpose(-2, -1) for block in blocks], dim=-1)
        return y.mul_(self.step.transpose(-2, -1))


def halved(cells: Folded) -> HalfFolded:
    """The same matrix with values in half precision; variances of reads keep their precision."""
    values, unit = cells.values, cells.unit.expand(*cells.values.shape[:-1], 1)
    rows = max(1, LARGE_BLOCK // 8 // values.shape[-1])
    parts = list(zip(values.split(rows, dim=-2), unit.split(rows, dim=-2), strict=True))
    top = torch.stack([(some / units).abs_().amax() for some, units in parts]).amax()
    excess = (top / TOP).clamp(min=1.0).log2().ceil().exp2()
    return HalfFolded(
        values=torch.cat([(some / units).div_(excess).to(torch.float16) for some, units in parts], dim=-2),
        variance=cells.variance,
        reference_variance=cells.reference_variance,
        unit=cells.unit,
        slices=cells.slices,
        mismatch=cells.mismatch,
        step=cells.unit * excess,
    )
