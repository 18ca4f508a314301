"""Inputs and tokens of one use of K or V, kept for calibration."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ohmformer.nn.operands.kv_transform import token_mean
from ohmformer.nn.operands.unpad import Unpadding

QUERIES = 64
"""Largest number of inputs of a sample that are kept, evenly spread."""


@dataclass(frozen=True, eq=False)
class Observation:
    """Inputs and tokens of one use of an operand, without padding.

    Attributes:
        x: inputs [B, R, M, d] of K or [B, R, M, n] of V.
        tokens: [B, R, n, d].
        unpadding: the places of tokens; None if every place holds one.
    """

    x: Tensor
    tokens: Tensor
    unpadding: Unpadding | None

    @staticmethod
    def of(x: Tensor, tokens: Tensor, unpadding: Unpadding | None, axis: str) -> Observation:
        """Keep inputs x[B, R, M, .] and tokens [B, R, N, d] of K or V (`axis`) that are not padding."""
        x = x[..., :: -(-x.shape[-2] // QUERIES), :]
        if unpadding is not None:
            tokens = unpadding.gather(tokens, -2)
            x = x if axis == "K" else unpadding.gather(x, -1)
        return Observation(x, tokens, unpadding)

    def centered(self, mean: Tensor | None) -> Tensor:
        """Tokens minus a mean [R, 1, d], by default their own; places without a token stay zero."""
        mean = token_mean(self.tokens, self.unpadding) if mean is None else mean
        tokens = self.tokens - mean
        return tokens if self.unpadding is None else tokens * self.unpadding.kept[:, None, :, None].to(tokens.dtype)
