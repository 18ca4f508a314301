"""Conditioning of K and V, with tensors that are fitted to what a model writes: exact on ideal hardware.

Shapes: B samples, R heads of keys and values, M inputs, n tokens that are written, d features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ohmformer.errors import BadInput
from ohmformer.mitigation.hadamard import full_precision
from ohmformer.mitigation.spec import Conditioning
from ohmformer.nn.operands.unpad import Unpadding

TRADE = 0.1
"""Weight of the variance of a code against the square of its bias, where codes are bias-corrected. It is small since
biases add up over the features of a token, and noise evens out."""

CLOSE = 1e-2
"""Largest difference of basis times inverse from the identity; rounding gives far less."""


@dataclass(frozen=True, eq=False)
class Conditioner:
    """A conditioning of one operand with all that was fitted.

    Attributes:
        spec: the conditioning.
        axis: "K" (its inputs, the queries, are transformed too) or "V" (the product is transformed back).
        mean: [R, 1, d] the mean of calibration tokens; None to subtract that of the tokens themselves, or none.
        basis: [R, d, d] the matrix that multiplies tokens, or None.
        inverse: [R, d, d] its inverse.
    """

    spec: Conditioning
    axis: str
    mean: Tensor | None = None
    basis: Tensor | None = None
    inverse: Tensor | None = None

    @property
    def sound(self) -> bool:
        """True if all tensors are finite, and `inverse` is the inverse of the basis."""
        parts = [t for t in (self.mean, self.basis, self.inverse) if t is not None]
        if not all(bool(t.isfinite().all()) for t in parts) or (self.basis is None) != (self.inverse is None):
            return False
        if self.basis is None or self.inverse is None:
            return True
        if self.basis.shape != self.inverse.shape or self.basis.shape[-2:] != self.basis.mT.shape[-2:]:
            return False
        eye = torch.eye(self.basis.shape[-1], dtype=torch.float64, device=self.basis.device)
        return bool(((self.basis.double() @ self.inverse.double() - eye).abs() < CLOSE).all())

    def values(self, tokens: Tensor, unpadding: Unpadding | None) -> tuple[Tensor, Tensor | None]:
        """The values [B, R, n, d] to write for tokens, and the mean [B or 1, R, 1, d] that was subtracted."""
        values, mean = tokens, None
        if self.spec.mean:
            mean = token_mean(tokens, unpadding) if self.mean is None else each_head(self.mean, tokens)
            values = tokens - mean
        if self.basis is not None:
            values = _product(values, each_head(self.basis, values))
        if mean is not None and unpadding is not None:
            values = values * unpadding.kept[:, None, :, None].to(values.dtype)
        return values, mean

    def inputs(self, x: Tensor) -> Tensor:
        """Inputs x[B, R, M, .] for conditioned tokens: queries are transformed to the basis of K."""
        if self.axis == "V" or self.inverse is None:
            return x
        return _product(x, each_head(self.inverse, x).transpose(-2, -1))

    def outputs(self, y: Tensor, x: Tensor, mean: Tensor | None) -> Tensor:
        """Undo the conditioning behind the product.

        The mean of K is added too: a softmax ignores it, but the product may go elsewhere.

        Args:
            y: the product [B, R, M, .] with conditioned tokens.
            x: its inputs [B, R, M, .] before `inputs`.
            mean: what `values` subtracted.
        """
        if self.axis == "K":
            return y if mean is None else y + _product(x, mean.transpose(-2, -1))
        if self.inverse is not None:
            y = _product(y, each_head(self.inverse, y))
        return y if mean is None else y + x.sum(dim=-1, keepdim=True) * mean

    def changed(self, *, range: float, radix: int | None) -> Conditioner:
        """The same transformation with another range and radix."""
        return replace(self, spec=self.spec.model_copy(update={"range": range, "radix": radix}))

    def to(self, like: Tensor) -> Conditioner:
        """The same conditioner in the dtype and on the device of a tensor."""
        mean, basis, inverse = (t if t is None else t.to(like) for t in (self.mean, self.basis, self.inverse))
        if mean is self.mean and basis is self.basis and inverse is self.inverse:
            return self
        return replace(self, mean=mean, basis=basis, inverse=inverse)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the wider dtype of both; autocast, under which a has half precision and b is full, rounds neither."""
    wide = torch.promote_types(a.dtype, b.dtype)
    with full_precision(a.device.type):
        return a.to(wide) @ b.to(wide)


def each_head(by_head: Tensor, like: Tensor) -> Tensor:
    """by_head[R, ...] for the H heads of like[B, H, ...], which may be copies of each of R heads, one after the other.

    Raises:
        BadInput: H is not a multiple of R.
    """
    heads = like.shape[1]
    if heads % len(by_head):
        raise BadInput(
            f"K and V have {heads} heads, but were calibrated with {len(by_head)}; calibrate on such a batch again"
        )
    return by_head if heads == len(by_head) else by_head.repeat_interleave(heads // len(by_head), dim=0)


def token_mean(tokens: Tensor, unpadding: Unpadding | None) -> Tensor:
    """The mean [B, R, 1, d] of tokens [B, R, n, d]; places without a token are zero and do not count."""
    if unpadding is None:
        return tokens.mean(dim=-2, keepdim=True)
    lengths = torch.tensor(unpadding.lengths, device=tokens.device).clamp(min=1)[:, None, None, None]
    return tokens.sum(dim=-2, keepdim=True) / lengths.to(tokens.dtype)
