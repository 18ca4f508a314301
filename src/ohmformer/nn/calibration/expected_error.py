"""The error that cells are expected to make in a product of attention, in closed form, without random draws.

Shapes: B samples, R heads of keys and values, M inputs, n written tokens, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.codes.code_moments import moments_of_values
from ohmformer.array.codes.codec import Codec
from ohmformer.array.spec import Crossbar
from ohmformer.nn.calibration.fit import Moments
from ohmformer.nn.operands.kv_transform import Conditioner
from ohmformer.nn.operands.observation import Observation
from ohmformer.nn.operands.unpad import Unpadding


def moments(watched: Sequence[Observation], axis: str, *, center: bool, fixed_mean: bool) -> Moments:
    """Return the moments of all observed inputs and tokens, in double precision.

    Args:
        watched: observations of one operand.
        axis: "K" or "V".
        center: True if the mean of the tokens is removed.
        fixed_mean: True if that is the mean of all tokens, False if it is the mean of each sample.
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
    """Return the second moment [R, d, d], up to a factor, of all parts[B, R, ., d]."""
    return torch.stack([torch.einsum("brnd,brne->rde", t, t).double() for t in parts]).sum(dim=0)


class WrittenOperand(Protocol):
    """The attributes of `KVOperand` that the expected error depends on."""

    array: Crossbar
    axis: str
    conditioner: Conditioner | None

    def range(self, values: Tensor, unpadding: Unpadding | None) -> Tensor:
        """Return the range of tokens, which broadcasts against them."""

    @property
    def codec(self) -> Codec:
        """The codec that turns tokens into codes."""


def expected_error(operand: WrittenOperand, watched: Sequence[Observation], *, noise: float = 1.0) -> Tensor:
    """Return the expected mean square error [R] of an operand's product, for each head.

    Rounding, saturation, clips and the mean of write noise make the same error whenever the same value is written. The
    rest of write noise counts by its variance, with independent tokens and features. From scores (the product with K)
    the mean error over tokens is subtracted, since softmax ignores it.

    Args:
        operand: K or V with its present conditioning and clip.
        watched: observed inputs and tokens.
        noise: weight of the variance; 1 gives the mean square error itself.
    """
    errors = [_error(operand, observation, noise) for observation in watched]
    return torch.stack(errors).mean(dim=0)


def _error(operand: WrittenOperand, observation: Observation, weight: float) -> Tensor:
    """Return the expected mean square error [R] for one observation."""
    conditioner = operand.conditioner
    observation = observation.after(0 if conditioner is None else conditioner.spec.first_tokens)
    x = observation.x
    target = observation.tokens
    if conditioner is not None:
        conditioner = conditioner.to(target)
        target, _ = conditioner.values(target, observation.unpadding)
        x = conditioner.inputs(x)
    w_range = operand.range(target, observation.unpadding)
    codes = operand.codec.codes(target, w_range)
    # Clipped values are written into fewer cells that correct one another.
    max_code = operand.codec.max_code if operand.array.residual is not None else None
    mean, variance = moments_of_values(codes, operand.array, max_code)
    unit = encoding.unit_of(w_range, operand.array.max_code)
    bias = mean * unit - target
    noise = variance * unit**2 * weight
    if operand.axis == "K":
        shift, spread = x @ bias.transpose(-2, -1), x.square() @ noise.transpose(-2, -1)
        return ((shift - shift.mean(dim=-1, keepdim=True)).square() + spread).mean(dim=(0, 2, 3))
    shift, spread = x @ bias, x.square() @ noise
    inverse = None if conditioner is None else conditioner.inverse
    if inverse is not None:
        shift, spread = shift @ inverse, spread @ inverse.square()
    return (shift.square() + spread).mean(dim=(0, 2, 3))
