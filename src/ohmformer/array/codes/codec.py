"""The one place where values become codes: scaled, clipped, rounded, and corrected for the bias of noisy cells.

Shapes: B samples, H heads, O outputs, I inputs of a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.codes.bias_correction import looked_up, nearest_codes, unbiased_codes
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.streams.backends import Kernels


@dataclass(frozen=True)
class SoftClip:
    """Soft-threshold the magnitude of a code, then saturate it.

    Attributes:
        shift: what is subtracted from the magnitude, as a share of full scale.
        top: where the shifted magnitude saturates, as a share of full scale.
        max_code: the largest code that remains.
    """

    shift: float
    top: float
    max_code: int

    def clip(self, codes: Tensor, array: Crossbar, *, rounded: bool = True) -> Tensor:
        """Clip codes; not idempotent, so apply it once.

        Args:
            codes: of any shape. Signs are kept, since a sign only chooses the half of a pair.
            array: the hardware.
            rounded: round the result to integers.

        Returns:
            New codes of the same shape.
        """
        magnitude = (codes.abs() / array.max_code - self.shift).clamp(min=0.0, max=self.top) * array.max_code
        return codes.sign() * (magnitude.round() if rounded else magnitude)


@dataclass(frozen=True)
class Codec:
    """How values become codes.

    Attributes:
        array: the hardware.
        clips: one for each head, or one for all heads; None leaves a head unclipped. Empty: no head is clipped.
        rounded: round codes to integers; False bypasses the quantizer.
        round_last: clip before rounding rather than after, which is more accurate where few codes are left.
        trade: choose codes whose cells hold the value on average, with this weight of their variance (see
            `unbiased_codes`); None takes the code whose levels are nearest. It has an effect only with `round_last`.
    """

    array: Crossbar
    clips: tuple[SoftClip | None, ...] = ()
    rounded: bool = True
    round_last: bool = False
    trade: float | None = None

    @property
    def max_code(self) -> int | None:
        """The largest code in use; None if some head is unclipped, so that every code of the array may occur."""
        largest = [clip.max_code for clip in self.clips if clip is not None]
        return max(largest) if largest and len(largest) == len(self.clips) else None

    def codes(
        self, values: Tensor, code_range: Tensor, written: Crossbar | None = None, *, kernels: Kernels = "torch"
    ) -> Tensor:
        """Turn values into codes.

        Args:
            values: [..., O, I]; with a clip for each head, [B, H, O, I].
            code_range: the value of the largest code; broadcasts against values.
            written: the hardware that the codes are written to, if it is `analog(array)`: its largest code is another
                one where the array has a radix. None for the array itself.
            kernels: what computes on the CPU.

        Returns:
            Codes of the same shape and dtype: integers if `rounded`, but not for cells that correct one another
            (`array.residual`), which hold values between two codes as well.

        Raises:
            BadInput: a value or a range is NaN or infinite, a range is negative, or H is not a multiple of the number
                of clips.
        """
        array, uneven, residual = self.array, self.array.cell.uneven, self.array.residual is not None
        round_first = self.rounded and not self.round_last and not (uneven or residual)
        codes = encoding.quantize(values, array, code_range, rounded=round_first, kernels=kernels)
        codes = self._clipped(codes, round_first)
        if residual:
            codes = codes if self.max_code is None else codes.clamp_(-self.max_code, self.max_code)
        elif self.rounded and not round_first:
            codes = self._rounded(codes)
        if written is None or written.max_code == array.max_code:
            return codes
        return codes * (written.max_code / array.max_code)

    def _rounded(self, codes: Tensor) -> Tensor:
        """Numbers between codes, rounded to codes whose cells hold them best."""
        array = self.array
        if self.trade is None and not array.cell.uneven:
            return codes.round_()
        if self.trade is not None and self.round_last:
            table = unbiased_codes(array, self.trade, self.max_code)
        else:
            table = nearest_codes(array, self.max_code)
        return looked_up(codes, array, table)

    def _clipped(self, codes: Tensor, rounded: bool) -> Tensor:
        """Codes [B, H, O, I] with the clip of each head applied, in the same order in memory."""
        if not self.clips:
            return codes
        if len(self.clips) == 1:
            return codes if self.clips[0] is None else self.clips[0].clip(codes, self.array, rounded=rounded)
        heads = codes.shape[1]
        if heads % len(self.clips):
            raise BadInput(f"clip: {len(self.clips)} clips for {heads} heads of K and V; give one for each head")
        clipped = torch.empty_like(codes)
        for head, clip in enumerate(self.clips * (heads // len(self.clips))):
            of_head = codes[:, head]
            clipped[:, head] = of_head if clip is None else clip.clip(of_head, self.array, rounded=rounded)
        return clipped
