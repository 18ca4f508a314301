"""Signatures: one number per row of a factor, by which two runs of a model on exchanged samples are compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Signature:
    """A factor of a product, summed over its inner axes with fixed weights.

    Attributes:
        values: [...] one number for each place along the other axes; empty on the meta device.
        shape: shape of the whole factor.
        constant: True if the factor does not depend on the input of the model, so it is the same for every sample.
    """

    values: Tensor
    shape: tuple[int, ...]
    constant: bool


def signature(factor: Tensor, constant: bool, *, matrix: bool = False) -> Signature:
    """The signature of a factor: of vectors [..., I], or of matrices [..., O, I] if `matrix` is True."""
    if factor.is_meta:
        return Signature(torch.empty(0), tuple(factor.shape), constant)
    values = factor.detach().double() if factor.dtype == torch.float64 else factor.detach().float()
    inner = min(2 if matrix else 1, factor.dim())
    for _ in range(inner):
        values = values @ torch.arange(1.0, values.shape[-1] + 1, device=factor.device).to(values).sin()
    return Signature(values, tuple(factor.shape), constant)
