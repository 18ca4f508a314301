"""What one use of K or V was given, kept for calibration."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ohmformer.nn.operands.kv_transform import token_mean
from ohmformer.nn.operands.unpad import Unpadding

QUERIES = 64
"""At most so many inputs of a sample are kept, evenly spread."""


@dataclass(frozen=True, eq=False)
class Observation:
    """What one use of an operand was given, padding left out.

    Attributes:
        x: inputs [B, R, M, d] of K or [B, R, M, n] of V.
        tokens: [B, R, n, d].
        dense: which of the tokens there are; None where all are.
    """

    x: Tensor
    tokens: Tensor
    dense: Unpadding | None

    @staticmethod
    def of(x: Tensor, tokens: Tensor, dense: Unpadding | None, axis: str) -> Observation:
        """Inputs x[B, R, M, I] and tokens[B, R, N, d] of which `dense` says which are written."""
        x = x[..., :: -(-x.shape[-2] // QUERIES), :]
        if dense is not None:
            tokens = dense.gather(tokens, -2)
            x = x if axis == "K" else dense.gather(x, -1)
        return Observation(x, tokens, dense)

    def centered(self, mean: Tensor | None) -> Tensor:
        """Tokens without their mean, or without that of calibration [R, 1, d]; places without a token stay zero."""
        found = self.tokens - (token_mean(self.tokens, self.dense) if mean is None else mean)
        return found if self.dense is None else found * self.dense.kept[:, None, :, None].to(found.dtype)
