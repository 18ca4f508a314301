"""From values to the codes that are written: scaled, clipped, rounded, and corrected for the bias of noisy cells.

Shapes: B samples, R heads, n tokens, d features, O outputs, I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.bias_correction import quantise_unbiased, unbiased_codes
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput


@dataclass(frozen=True)
class SoftClip:
    """A soft threshold and a saturation of magnitudes.

    Attributes:
        shift: what is subtracted from a magnitude, as a share of full scale.
        top: where it saturates then, as a share of full scale.
        max_code: the largest code that is left.
    """

    shift: float
    top: float
    max_code: int

    def clip(self, codes: Tensor, array: Crossbar, *, rounded: bool = True) -> Tensor:
        """Codes of any shape; signs are kept, since they only choose the half of a pair. To be applied once."""
        x = (codes.abs() / array.max_code - self.shift).clamp(min=0.0, max=self.top) * array.max_code
        return codes.sign() * (x.round() if rounded else x)


@dataclass(frozen=True)
class Codec:
    """How values become codes.

    Attributes:
        array: the hardware.
        clips: one for each head, or one for all; None leaves a head as it is; empty: no head is clipped.
        rounded: codes are integers; otherwise the quantizer is bypassed.
        round_last: codes are clipped before they are rounded, which is better where few codes are left.
        trade: codes are chosen so that cells hold what is wanted on average, with this weight of their variance (see
            `unbiased_codes`); None writes the nearest code. Only with `round_last`.
    """

    array: Crossbar
    clips: tuple[SoftClip | None, ...] = ()
    rounded: bool = True
    round_last: bool = False
    trade: float | None = None

    @property
    def max_code(self) -> int | None:
        """The largest code in use; None if some head is not clipped, so that all may be."""
        largest = [clip.max_code for clip in self.clips if clip is not None]
        return max(largest) if largest and len(largest) == len(self.clips) else None

    def codes(self, values: Tensor, value_range: Tensor) -> Tensor:
        """The codes of values[B, R, n, d], or of any [..., O, I] without clips; the range broadcasts against them.

        Raises:
            BadInput: a value or a range is NaN or infinite, a range is negative, or R is no multiple of the clips.
        """
        early = self.rounded and not self.round_last
        codes = self._clipped(encoding.quantise(values, self.array, value_range, rounded=early), early)
        if early or not self.rounded:
            return codes
        if self.trade is None:
            return codes.round_()
        table = unbiased_codes(self.array, self.trade, self.max_code)
        return quantise_unbiased(codes, self.array, codes.new_tensor(float(self.array.max_code)), table)

    def _clipped(self, codes: Tensor, rounded: bool) -> Tensor:
        if not self.clips:
            return codes
        if len(self.clips) == 1:
            return codes if self.clips[0] is None else self.clips[0].clip(codes, self.array, rounded=rounded)
        heads = codes.shape[1]
        if heads % len(self.clips):
            raise BadInput(f"clip: {len(self.clips)} clips for {heads} heads of K and V; give one for each head")
        each = zip(codes.unbind(1), self.clips * (heads // len(self.clips)), strict=True)
        return torch.stack([h if c is None else c.clip(h, self.array, rounded=rounded) for h, c in each], dim=1)
