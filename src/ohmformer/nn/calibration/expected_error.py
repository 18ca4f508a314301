"""The error that cells are expected to make in a product of attention, in closed form: nothing is drawn.

Shapes: B samples, R heads of keys and values, M inputs, n tokens that are written, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.code_moments import held_moments
from ohmformer.array.codec import Codec
from ohmformer.array.spec import Crossbar
from ohmformer.nn.calibration.fit import Moments
from ohmformer.nn.operands.kv_transform import Conditioner
from ohmformer.nn.operands.observation import Observation
from ohmformer.nn.operands.unpad import Unpadding


def moments(watched: Sequence[Observation], axis: str, *, center: bool, fixed_mean: bool) -> Moments:
    """The moments of all that was watched, in double precision.

    Args:
        watched: of one operand.
        axis: "K" or "V".
        center: the mean of the tokens is removed.
        fixed_mean: that of all tokens, not of each sample's.
    """
    counts = sum(
        float(w.tokens.shape[0] * w.tokens.shape[2] if w.unpadding is None else sum(w.unpadding.lengths))
        for w in watched
    )
    mean = torch.stack([w.tokens.double().sum(dim=(0, 2)) for w in watched]).sum(dim=0).unsqueeze(1) / max(1.0, counts)
    like = watched[0].tokens
    fixed = mean.to(like) if fixed_mean else None
    spread = _second([w.centered(fixed) if center else w.tokens for w in watched])
    eye = torch.eye(spread.shape[-1], dtype=spread.dtype, device=spread.device)
    metric = _second([w.x for w in watched]) if axis == "K" else eye.expand_as(spread)
    return Moments(mean.double(), spread, metric)


def _second(parts: Sequence[Tensor]) -> Tensor:
    """Second moment [R, d, d], up to a factor, of parts[B, R, ., d]."""
    return torch.stack([torch.einsum("brnd,brne->rde", t, t).double() for t in parts]).sum(dim=0)


class Written(Protocol):
    """What is asked of an operand, as it is calibrated now."""

    array: Crossbar
    axis: str
    conditioner: Conditioner | None

    def range(self, values: Tensor, unpadding: Unpadding | None) -> Tensor:
        """The range of tokens, broadcasting against them."""

    @property
    def codec(self) -> Codec:
        """How tokens become the codes that are written."""


def expected_error(operand: Written, watched: Sequence[Observation], *, noise: float = 1.0) -> Tensor:
    """Mean square [R] of the error that cells are expected to make in an operand's product, for each head.

    Rounding, saturation, clips and what write noise adds on average make the same error whenever the same is written;
    the rest of write noise counts by its variance, tokens and features being independent. Of scores (the product with
    K) the mean over tokens is left out, since softmax ignores it.

    Args:
        operand: K or V, as it is set now.
        watched: what it is given.
        noise: weight of the variance; 1 for the mean square itself.
    """
    total = [_error(operand, each, noise) for each in watched]
    return torch.stack(total).mean(dim=0)


def _error(operand: Written, seen: Observation, weight: float) -> Tensor:
    conditioner, x = operand.conditioner, seen.x
    target = seen.tokens
    if conditioner is not None:
        conditioner = conditioner.to(target)
        target, _ = conditioner.tokens(target, seen.unpadding)
        x = conditioner.inputs(x)
    w_range = operand.range(target, seen.unpadding)
    codes = operand.codec.codes(target, w_range)
    mean, variance = (t.to(target) for t in held_moments(operand.array))
    unit = encoding.unit_of(w_range, operand.array.max_code)
    place = codes.abs().long()
    bias = codes.sign() * mean[place] * unit - target
    noise = variance[place] * unit**2 * weight
    if operand.axis == "K":
        shift, spread = x @ bias.transpose(-2, -1), x.square() @ noise.transpose(-2, -1)
        return ((shift - shift.mean(dim=-1, keepdim=True)).square() + spread).mean(dim=(0, 2, 3))
    shift, spread = x @ bias, x.square() @ noise
    inverse = None if conditioner is None else conditioner.inverse
    if inverse is not None:
        shift, spread = shift @ inverse, spread @ inverse.square()
    return (shift.square() + spread).mean(dim=(0, 2, 3))
