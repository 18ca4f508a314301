"""Fit a conditioning of K or V to tokens and inputs of calibration.

Shapes: R heads of keys and values, d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.mitigation.hadamard import hadamard, signs
from ohmformer.mitigation.spec import Conditioning
from ohmformer.nn.operands.kv_transform import Conditioner

RIDGE = 1e-3
"""Share of the mean power of features that is added to all of them, so that unused features are not scaled to zero."""


@dataclass(frozen=True)
class Moments:
    """Moments of an operand's tokens and inputs, to which a conditioning is fitted.

    Attributes:
        mean: mean of the tokens [R, 1, d].
        spread: second moment [R, d, d] of the tokens that would be written without another basis.
        metric: matrix [R, d, d] that weighs noise of a token: for K the second moment of the queries, for V the
            identity.
    """

    mean: Tensor
    spread: Tensor
    metric: Tensor


def fit(spec: Conditioning, axis: str, moments: Moments, *, fixed_mean: bool) -> Conditioner:
    """Fit a conditioning to tokens with these moments.

    Args:
        spec: the conditioning.
        axis: "K" or "V".
        moments: moments in the calibration.
        fixed_mean: True if the mean is that of calibration, since tokens may come one by one.
    """
    mean = moments.mean if spec.mean and fixed_mean else None
    size, like = moments.mean.shape[-1], moments.spread
    rotation = (signs(size, device=like.device)[:, None] * hadamard(size, device=like.device)).to(like.dtype)
    match spec.basis:
        case "own":
            return Conditioner(spec, axis, mean)
        case "hadamard":
            basis = rotation.expand_as(like)
        case "rescaled":
            factors = (_ridge_diagonal(moments.metric) / _ridge_diagonal(moments.spread)).pow(0.25)
            basis = torch.diag_embed(factors)
        case "balanced":
            basis = balanced(moments.spread, moments.metric) @ rotation
    return Conditioner(spec, axis, mean, basis, torch.linalg.inv(basis))


def balanced(spread: Tensor, metric: Tensor) -> Tensor:
    """Return the basis M [R, d, d] in which tokens T M and inputs X M^-T have the smallest product of powers.

    With second moments C of tokens (`spread`) and Q of inputs (`metric`), tr(M^T C M) tr(M^-1 Q M^-T) is smallest if
    M M^T is the geometric mean of C^-1 and Q. Both traces then are the sum of the singular values of C^1/2 Q^1/2.
    """
    spread, metric = (_with_ridge(t) for t in (spread, metric))
    root, inverse_root = _roots(spread)
    middle, _ = _roots(root @ metric @ root)
    values, vectors = torch.linalg.eigh(inverse_root @ middle @ inverse_root)
    basis: Tensor = vectors * values.clamp(min=values.amax(-1, keepdim=True) * 1e-12).sqrt()[..., None, :]
    return basis


def _roots(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the square root of a symmetric positive t[R, d, d], and the inverse of the root."""
    values, vectors = torch.linalg.eigh(t)
    roots = values.clamp(min=values.amax(-1, keepdim=True) * 1e-12).sqrt()[..., None, :]
    return (vectors * roots) @ vectors.transpose(-2, -1), (vectors / roots) @ vectors.transpose(-2, -1)


def _ridge_diagonal(t: Tensor) -> Tensor:
    """Return the diagonal [R, d] of t[R, d, d] with the ridge added."""
    return _with_ridge(t).diagonal(dim1=-2, dim2=-1)


def _with_ridge(t: Tensor) -> Tensor:
    """Return t[R, d, d] plus `RIDGE` times its mean diagonal; plus the identity if that is zero."""
    power = t.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[:, None, None]
    eye = torch.eye(t.shape[-1], dtype=t.dtype, device=t.device)
    return t + eye * torch.where(power > 0, power * RIDGE, 1.0)
