"""What the rows of an array get for inputs in the usual case, with all that is the same in every call found before.

Shapes: M input vectors, I inputs; `...` are matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ohmformer import deferred_checks
from ohmformer.array import encoding
from ohmformer.array.chunking import pieces
from ohmformer.array.kernels.input_codes import LARGEST
from ohmformer.array.kernels.scratch import scratch
from ohmformer.array.peripherals import drivers
from ohmformer.array.spec import Crossbar
from ohmformer.streams.backends import Kernels

SMALL = 2**15
"""Values below which new memory costs no more than memory that is used again."""


@dataclass(frozen=True)
class SentInputs:
    """Inputs of one range, rounded to what the drivers of an array send.

    Attributes:
        low: the lowest code.
        top: the highest code, which stands for the largest input.
        unit: the value of one code, a number of float32.
        compiled: True if a compiled loop computes.
    """

    low: int
    top: int
    unit: float
    compiled: bool

    @staticmethod
    def of(array: Crossbar, x_range: Tensor | None, *, signed: bool, kernels: Kernels) -> SentInputs | None:
        """The inputs of an array on the CPU; None unless they have one range, and drivers send them as they are.

        Args:
            array: the hardware.
            x_range: the value of the largest code, a scalar; None if it is found in every call.
            signed: False if inputs are never negative.
            kernels: what computes.
        """
        top = array.max_input(signed=signed)
        if x_range is None or x_range.dim() or x_range.device.type != "cpu" or top > LARGEST:
            return None
        if deferred_checks.waits(x_range.device):  # checks here are made at once
            return None
        largest = float(x_range)
        if not drivers.plain(array) or not 0 <= largest < math.inf:
            return None
        unit = float(np.float32(largest) / np.float32(top)) or float(np.float32(1.0 / top))
        return SentInputs(-top if signed else 0, top, unit, kernels != "torch")

    def __call__(self, x: Tensor, factor: float | None = None, *, squares: bool = False) -> tuple[Tensor, Tensor]:
        """Inputs as they are sent.

        Args:
            x: inputs [..., M, I] in float32 on the CPU.
            factor: of the codes; None for the value of one code.
            squares: compute the squares of the result, too.

        Returns:
            The codes times the factor, and their squares; or twice the codes. They may hold only until this thread
            sends other inputs.

        Raises:
            BadInput: a value is NaN or infinite.
        """
        factor = self.unit if factor is None else factor
        if self.compiled:
            return self._by_loop(x, factor, squares)
        codes = x / self.unit
        if not math.isfinite(x.detach().sum().item()):
            raise encoding.unusable("an input of a crossbar", torch.ones(()))
        for (piece,) in pieces(codes):
            piece.round_().clamp_(self.low, self.top)
            if factor != 1.0:
                piece.mul_(factor)
        return codes, codes.square() if squares else codes

    def _by_loop(self, x: Tensor, factor: float, squares: bool) -> tuple[Tensor, Tensor]:
        """`__call__` by a compiled loop."""
        from ohmformer.array.kernels import input_codes_compiled

        n0, n1, n2, size = 1, 1, 1, x.numel()
        s0, s1, s2 = 0, 0, 0
        if x.dim() == 4 and x.stride(3) == 1 and not x.is_contiguous():
            (n0, n1, n2, size), (s0, s1, s2, _) = x.shape, x.stride()
        else:
            x = x.contiguous()
        if x.numel() < SMALL:
            codes = x.new_empty(x.shape)
            squared = x.new_empty(x.shape) if squares else codes
        else:
            codes = scratch("codes", x.shape)
            squared = scratch("squares", x.shape) if squares else codes
        at = codes.data_ptr(), squared.data_ptr() if squares else 0, x.data_ptr()
        numbers = self.unit, factor, float(self.low), float(self.top)
        if input_codes_compiled.send(*at, n0, n1, n2, s0, s1, s2, size, *numbers):
            raise encoding.unusable("an input of a crossbar", torch.ones(()))
        return codes, squared
