"""What calibration keeps: inputs and tokens of one use of K or V, and input vectors of static weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ohmformer.nn.operands.kv_transform import token_mean
from ohmformer.nn.operands.unpad import Unpadding, unpad_where
from ohmformer.nn.shared.memory import Mask
from ohmformer.precision import widened

QUERIES = 64
"""Largest number of inputs of a sample that are kept, evenly spread."""
VECTORS = 256
"""Largest number of input vectors of static weights that are kept of one call, evenly spread."""
TOKENS = 1024
"""Number of tokens at which the search for a setting takes no further samples: with some dozen features each, more of
them do not change what it finds."""
CALLS = 4
"""Largest number of calls of which input vectors are kept; maxima are those of all calls."""


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

    def of_sample(self, b: int) -> Observation:
        """Copy the part of sample b, which leaves the memory of the others free."""
        x, tokens, where = self.x[b : b + 1].clone(), self.tokens[b : b + 1].clone(), self.unpadding
        if where is not None:
            where = Unpadding(where.index[b : b + 1], where.kept[b : b + 1], where.lengths[b : b + 1], where.slots)
        return Observation(x, tokens, where, self.axis)

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

    def samples(self, count: int) -> Observation:
        """The observation of the first `count` samples."""
        places = self.unpadding
        if places is not None:
            places = replace(
                places, index=places.index[:count], kept=places.kept[:count], lengths=places.lengths[:count]
            )
        return replace(self, x=self.x[:count], tokens=self.tokens[:count], unpadding=places)

    def centered(self, mean: Tensor | None) -> Tensor:
        """Tokens minus a mean [R, 1, d], by default their own; places without a token stay zero."""
        mean = token_mean(self.tokens, self.unpadding) if mean is None else mean
        tokens = self.tokens - mean
        return tokens if self.unpadding is None else tokens * self.unpadding.kept[:, None, :, None].to(tokens.dtype)


def first_samples(watched: Sequence[Observation], tokens: int = TOKENS) -> list[Observation]:
    """Return observations of the first samples: enough of them for a number of tokens, or all if there are fewer.

    Args:
        watched: observations of one operand.
        tokens: the number of tokens, padding included.
    """
    found: list[Observation] = []
    for each in watched:
        length = max(1, each.tokens.shape[2])
        count = min(len(each.tokens), -(-tokens // length))
        found.append(each.samples(count))
        tokens -= count * length
        if tokens <= 0:
            break
    return found


@dataclass(eq=False)
class WeightInputs:
    """Input vectors of one matrix of static weights.

    Attributes:
        largest: [I] the largest magnitude of each input; None before the first call.
        kept: input vectors [M, I] of some calls.
        weights: the matrix [O, I]; of a stack of matrices [G, O, I], all rows.
        moments: second moments [I, I] of all input vectors, up to a factor; None if they are not collected.
        several: True if the weights are a stack of matrices.
    """

    largest: Tensor | None = None
    kept: list[Tensor] = field(default_factory=list)
    weights: Tensor | None = None
    moments: Tensor | None = None
    several: bool = False

    def add(self, x: Tensor, w: Tensor, mask: Mask) -> None:
        """Add the inputs x[..., I] of one call with the weights w[..., O, I].

        `mask` [B, N] is False at padding, which is left out if inputs are [B, N, I]; empty if nothing is known of it.
        """
        known = bool(mask) and x.shape[:-1] == mask[0].shape and bool(mask[0].any())
        x = x[mask[0]] if known else x
        vectors = widened(x, "inputs").reshape(-1, x.shape[-1])
        seen = vectors.abs().amax(dim=0)
        if self.moments is not None:
            self.moments = self.moments + _second_moments(vectors, seen.amax())
        self.largest = seen if self.largest is None else torch.maximum(self.largest, seen)
        self.weights, self.several = widened(w, "weights").reshape(-1, w.shape[-1]), w.dim() > 2
        if len(self.kept) < CALLS:
            self.kept.append(vectors[:: -(-len(vectors) // VECTORS)])


def _second_moments(vectors: Tensor, largest: Tensor) -> Tensor:
    """Return the sum [I, I] of products of vectors [M, I], in float64.

    Vectors are divided by a power of two near their largest magnitude, which changes no digit, and keeps squares within
    the numbers of their type.
    """
    exponent = largest.frexp().exponent.clamp(-100, 100)
    vectors = vectors.ldexp(-exponent)
    return (vectors.T @ vectors).double().ldexp(2 * exponent)
