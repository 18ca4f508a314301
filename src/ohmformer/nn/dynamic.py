"""K and V on crossbars: written for every input, with fresh noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ohmformer.array import encoding, writing
from ohmformer.array.crossbar import Programmed
from ohmformer.array.folded import Folded
from ohmformer.nn.clipping import clip_codes
from ohmformer.nn.operand import Operand
from ohmformer.streams import sample_streams


@dataclass(eq=False)
class DynamicOperand(Operand):
    """K or V: written for every sample, with fresh noise.

    Attributes:
        fault_name: the arrays that are used; layers that share arrays share their faults.
        axis: "K" (tokens are outputs) or "V" (tokens are inputs).
    """

    dynamic: ClassVar[bool] = True

    fault_name: str = ""
    axis: str = "K"

    def product(self, x: Tensor, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Inputs with K or V tokens[B, H, N, d]: x[B, H, M, d] @ K.T, or x[B, H, M, N] @ V.

        `valid` [B, 1, N, 1] is False at padding, which does not count for the range.
        """
        w = tokens if self.axis == "K" else tokens.transpose(-2, -1)
        exact = self.exact_product(x, w)
        if exact is not None:
            return exact
        turn = self.take_turn()
        with torch.no_grad():
            held, gain = self._write(tokens.detach(), valid, turn)
        if gain is not None:
            x = x * gain
            w = w / torch.where(gain > 0, gain, 1.0)
        return self.multiply(x, w, held, turn)

    def _write(
        self, tokens: Tensor, valid: Tensor | None, turn: tuple[int, ...] = ()
    ) -> tuple[Folded | Programmed, Tensor | None]:
        """Program tokens[B, H, N, d]; also the gain of each row, where rows have ranges of their own."""
        array, state = self.array, self.state
        magnitude = tokens.abs() if valid is None else tokens.abs() * valid
        dims = {"tensor": tuple(range(1, tokens.dim())), "head": (-2, -1), "token": (-1,), "column": (-2,)}[array.scale]
        if array.scale == "column" and self.axis == "K":
            dims = (-1,)
        w_range = magnitude.amax(dim=dims, keepdim=True)
        codes = encoding.quantise(tokens, array, w_range)
        if state.clip is not None:
            codes = clip_codes(codes, state.clip, array)
        gain = None
        if self.axis == "V":
            codes = codes.transpose(-2, -1)
            if array.scale == "token":
                # A row's own range cannot be applied to column sums, so it is applied to the input of the row.
                common = w_range.amax(dim=-2, keepdim=True)
                gain = (w_range / torch.where(common > 0, common, 1.0)).transpose(-2, -1)
                w_range = common
            w_range = w_range.transpose(-2, -1)
        chip = state.stream.child(self.name, *turn)
        held = self.hold(
            codes,
            w_range=w_range,
            stream=chip if writing.exact(array) else sample_streams(chip, len(tokens)),
            fault_stream=state.stream.child("faults", self.fault_name),
            max_code=None if state.clip is None else state.clip.max_code(array),
            major="outputs" if self.axis == "K" else "inputs",
        )
        return held, gain
