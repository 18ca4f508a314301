"""Fit a conditioning of K or V to the tokens and inputs of calibration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.mitigation.hadamard import hadamard, signs
from ohmformer.mitigation.spec import Conditioning

RIDGE = 1e-3
"""Share of the mean power of a feature that is added to all: features that are never used must not be scaled away."""


@dataclass(frozen=True)
class Moments:
    """What a fit needs to know of an operand.

    Attributes:
        mean: [R, 1, d] of the tokens.
        spread: [R, d, d] second moment of the tokens as they are written in their own basis.
        metric: [R, d, d] what noise of a token is measured with: that of the queries for K, the identity for V.
    """

    mean: Tensor
    spread: Tensor
    metric: Tensor


def fit(spec: Conditioning, axis: str, moments: Moments, *, fixed_mean: bool) -> Conditioner:
    """The conditioning for tokens with these moments.

    Args:
        spec: what is done.
        axis: "K" or "V".
        moments: of calibration.
        fixed_mean: tokens come one by one, so their mean is that of calibration.
    """
    mean = moments.mean if spec.mean and fixed_mean else None
    size, like = moments.mean.shape[-1], moments.spread
    turn = (signs(size, device=like.device)[:, None] * hadamard(size, device=like.device)).to(like.dtype)
    match spec.basis:
        case "own":
            return Conditioner(spec, axis, mean)
        case "hadamard":
            basis = turn.expand_as(like)
        case "rescaled":
            factors = (_ridged(moments.metric) / _ridged(moments.spread)).pow(0.25)
            basis = torch.diag_embed(factors)
        case "balanced":
            basis = balanced(moments.spread, moments.metric) @ turn
    return Conditioner(spec, axis, mean, basis, torch.linalg.inv(basis))


def balanced(spread: Tensor, metric: Tensor) -> Tensor:
    """The basis M [R, d, d] in which tokens T M and inputs X M^-T have the smallest product of powers.

    With second moments C of tokens (`spread`) and Q of inputs (`metric`), tr(M^T C M) tr(M^-1 Q M^-T) is smallest where
    M M^T is the geometric mean of C^-1 and Q: there both are the sum of the singular values of C^1/2 Q^1/2.
    """
    spread, metric = (_with_ridge(t) for t in (spread, metric))
    root, inverse_root = _powers(spread)
    middle, _ = _powers(root @ metric @ root)
    values, vectors = torch.linalg.eigh(inverse_root @ middle @ inverse_root)
    found: Tensor = vectors * values.clamp(min=values.amax(-1, keepdim=True) * 1e-12).sqrt()[..., None, :]
    return found


def _powers(t: Tensor) -> tuple[Tensor, Tensor]:
    """Square root of a symmetric positive t[R, d, d], and its inverse."""
    values, vectors = torch.linalg.eigh(t)
    roots = values.clamp(min=values.amax(-1, keepdim=True) * 1e-12).sqrt()[..., None, :]
    return (vectors * roots) @ vectors.transpose(-2, -1), (vectors / roots) @ vectors.transpose(-2, -1)


def _ridged(t: Tensor) -> Tensor:
    return _with_ridge(t).diagonal(dim1=-2, dim2=-1)


def _with_ridge(t: Tensor) -> Tensor:
    """t[R, d, d] with `RIDGE` times its mean diagonal added; the identity where it is zero."""
    own = t.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[:, None, None]
    eye = torch.eye(t.shape[-1], dtype=t.dtype, device=t.device)
    return t + eye * torch.where(own > 0, own * RIDGE, 1.0)
