"""Tokens without the padding between them: what is written stands side by side, in the order in which it was written.

Shapes: B samples, R heads, N tokens as they come, n tokens that are written, d features, M inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Compaction:
    """Which tokens are written.

    Attributes:
        index: [B, n] where they stand among the N; places beyond a sample's own number hold any token.
        lengths: how many each sample has.
        tokens: N.
    """

    index: Tensor
    lengths: tuple[int, ...]
    tokens: int

    @property
    def kept(self) -> Tensor:
        """[B, n] whether a place holds a token."""
        places = torch.arange(self.index.shape[1], device=self.index.device)
        return places < torch.tensor(self.lengths, device=self.index.device)[:, None]

    def gather(self, t: Tensor, dim: int) -> Tensor:
        """t[B, R, ...] with N tokens along `dim` to the n that are written; places that hold none are zero."""
        dim %= t.dim()
        shape = [1] * t.dim()
        shape[0], shape[dim] = self.index.shape
        index = self.index.reshape(shape)
        found = t.gather(dim, index.expand(*t.shape[:dim], index.shape[dim], *t.shape[dim + 1 :]))
        return found * self.kept.reshape(shape).to(t.dtype)

    def scatter(self, t: Tensor, dim: int) -> Tensor:
        """The inverse of `gather`: tokens that were not written give zero."""
        dim %= t.dim()
        shape = [1] * t.dim()
        shape[0], shape[dim] = self.index.shape
        t = t * self.kept.reshape(shape).to(t.dtype)
        index = self.index.reshape(shape).expand_as(t)
        size = [*t.shape[:dim], self.tokens, *t.shape[dim + 1 :]]
        return t.new_zeros(size).scatter_add(dim, index, t)


def compaction(valid: Tensor | None, samples: int) -> Compaction | None:
    """The compaction of valid[B or 1, N]; None where every token is written."""
    if valid is None or bool(valid.all()):
        return None
    valid = valid.expand(samples, -1)
    lengths = valid.sum(dim=1)
    longest = max(1, int(lengths.max()))
    index = (~valid).to(torch.int8).sort(dim=1, stable=True).indices[:, :longest]
    return Compaction(index, tuple(lengths.tolist()), valid.shape[1])
