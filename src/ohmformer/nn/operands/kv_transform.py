"""Conditioning of K and V, fitted to what a model writes: exact on ideal hardware.

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
"""How much the variance of a code counts beside the square of its bias, where codes are unbiased: what is too much or
too little adds up over the features of a token, and what is drawn evens out."""


CLOSE = 1e-2
"""How far the product of a basis and its inverse may be from the identity, anywhere: rounding gives far less."""


@dataclass(frozen=True, eq=False)
class Conditioner:
    """A conditioning of one operand with all that was fitted.

    Attributes:
        spec: what is done.
        axis: "K" (its inputs, the queries, are transformed too) or "V" (the product is transformed back).
        mean: [R, 1, d] the mean of the tokens of calibration; None where that of the tokens at hand is taken, or none.
        basis: [R, d, d] what tokens are multiplied with, or None.
        inverse: [R, d, d] its inverse.
    """

    spec: Conditioning
    axis: str
    mean: Tensor | None = None
    basis: Tensor | None = None
    inverse: Tensor | None = None

    @property
    def sound(self) -> bool:
        """Whether all parts are finite, and the inverse is that of the basis."""
        parts = [t for t in (self.mean, self.basis, self.inverse) if t is not None]
        if not all(bool(t.isfinite().all()) for t in parts) or (self.basis is None) != (self.inverse is None):
            return False
        if self.basis is None or self.inverse is None:
            return True
        if self.basis.shape != self.inverse.shape or self.basis.shape[-2:] != self.basis.mT.shape[-2:]:
            return False
        eye = torch.eye(self.basis.shape[-1], dtype=torch.float64, device=self.basis.device)
        return bool(((self.basis.double() @ self.inverse.double() - eye).abs() < CLOSE).all())

    def tokens(self, tokens: Tensor, dense: Unpadding | None) -> tuple[Tensor, Tensor | None]:
        """tokens[B, R, n, d] as they are written, and the mean [B or 1, R, 1, d] that they lack."""
        mean = None
        if self.spec.mean:
            mean = token_mean(tokens, dense) if self.mean is None else each_head(self.mean, tokens)
            tokens = tokens - mean
        if self.basis is not None:
            tokens = _product(tokens, each_head(self.basis, tokens))
        if mean is not None and dense is not None:
            tokens = tokens * dense.kept[:, None, :, None].to(tokens.dtype)
        return tokens, mean

    def inputs(self, x: Tensor) -> Tensor:
        """Inputs x[B, R, M, .] as they are sent: queries in the basis of K."""
        if self.axis == "V" or self.inverse is None:
            return x
        return _product(x, each_head(self.inverse, x).transpose(-2, -1))

    def outputs(self, y: Tensor, x: Tensor, mean: Tensor | None) -> Tensor:
        """The product y[B, R, M, .] of inputs x[B, R, M, .] (as they were given) in the features of the model.

        The mean of K is added too: softmax ignores it, but whether softmax comes next is not asked.
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
        """The same in the type and on the device of a tensor."""
        mean, basis, inverse = (t if t is None else t.to(like) for t in (self.mean, self.basis, self.inverse))
        if mean is self.mean and basis is self.basis and inverse is self.inverse:
            return self
        return replace(self, mean=mean, basis=basis, inverse=inverse)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b; under autocast a half-precision a meets a full b, and none of the two is rounded."""
    wide = torch.promote_types(a.dtype, b.dtype)
    with full_precision(a.device.type):
        return a.to(wide) @ b.to(wide)


def each_head(own: Tensor, like: Tensor) -> Tensor:
    """own[R, ...] for like[B, H, ...], whose H heads may hold copies of each of the R, one after the other.

    Raises:
        BadInput: H is no multiple of R.
    """
    heads = like.shape[1]
    if heads % len(own):
        raise BadInput(
            f"K and V have {heads} heads, but were calibrated with {len(own)}; calibrate on such a batch again"
        )
    return own if heads == len(own) else own.repeat_interleave(heads // len(own), dim=0)


def token_mean(tokens: Tensor, dense: Unpadding | None) -> Tensor:
    """The mean [B, R, 1, d] of tokens[B, R, n, d], of which those that are none count as zeros."""
    if dense is None:
        return tokens.mean(dim=-2, keepdim=True)
    lengths = torch.tensor(dense.lengths, device=tokens.device).clamp(min=1)[:, None, None, None]
    return tokens.sum(dim=-2, keepdim=True) / lengths.to(tokens.dtype)
