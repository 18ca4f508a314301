"""Inputs and tokens of one use of K or V, kept for calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ohmformer.nn.operands.kv_transform import token_mean
from ohmformer.nn.operands.unpad import Unpadding, unpad_where

QUERIES = 64
"""Largest number of inputs of a sample that are kept, evenly spread."""


@dataclass(frozen=True, eq=False)
class Observation:
    """Inputs and tokens of one use of an operand, without padding.

    Attributes:
        x: inputs [B, R, M, d] of K or [B, R, M, n] of V.
        tokens: [B, R, n, d].
        unpadding: the places of tokens; None if every place holds one.
        axis: "K" or "V".
    """

    x: Tensor
    tokens: Tensor
    unpadding: Unpadding | None
    axis: str

    @staticmethod
    def of(x: Tensor, tokens: Tensor, unpadding: Unpadding | None, axis: str) -> Observation:
        """Keep inputs x[B, R, M, .] and tokens [B, R, N, d] of K or V (`axis`) that are not padding."""
        x = x[..., :: -(-x.shape[-2] // QUERIES), :]
        if unpadding is not None:
            tokens = unpadding.gather(tokens, -2)
            x = x if axis == "K" else unpadding.gather(x, -1)
        return Observation(x, tokens, unpadding, axis)

    def after(self, first: int) -> Observation:
        """The observation without the first tokens of each sample, which no cell holds.

        At least one place remains, without a token if there is none.

        Args:
            first: number of these tokens.
        """
        if not first:
            return self
        B, _, n, _ = self.tokens.shape
        unpadding = self.unpadding or unpad_where(torch.ones(B, n, dtype=torch.bool, device=self.tokens.device))
        start = min(first, n - 1)
        lengths = tuple(max(0, length - first) for length in unpadding.lengths)
        kept = unpadding.kept[:, start:] & (n > first)
        rest = Unpadding(unpadding.index[:, start:], kept, lengths, unpadding.slots)
        there = kept[:, None, :, None].to(self.tokens.dtype)
        x = self.x if self.axis == "K" else self.x[..., start:] * there.transpose(-2, -1)
        return replace(self, x=x, tokens=self.tokens[:, :, start:] * there, unpadding=rest)

    def centered(self, mean: Tensor | None) -> Tensor:
        """Tokens minus a mean [R, 1, d], by default their own; places without a token stay zero."""
        mean = token_mean(self.tokens, self.unpadding) if mean is None else mean
        tokens = self.tokens - mean
        return tokens if self.unpadding is None else tokens * self.unpadding.kept[:, None, :, None].to(tokens.dtype)
