"""Convolutions as matrix products of patches with one matrix of weights per group.

Shapes: B images, C input channels, G groups, O output channels, L output positions, I = C / G times the kernel size.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CONVOLUTIONS = {F.conv1d, F.conv2d, torch.conv1d, torch.conv2d}
"""The functions whose arguments `as_product` takes."""

Product = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]
"""Left factor, right factor, and the function that makes the result of the call from their product."""


def as_product(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Product | None:
    """A convolution as a matrix product; the arguments are those of `F.conv1d` and `F.conv2d`.

    Returns:
        patches[B, G, L, I], weights[G, O / G, I], and the function from their product [B, G, L, O / G] to the result
        of the convolution. With one group, the axis G is left out: patches[B, L, I], weights[O, I]. None for input
        without a batch. The weights are copied if their strides do not fit a matrix (memory format `channels_last`).
    """
    dims = weight.dim() - 2
    if input.dim() != weight.dim():
        return None
    strides, dilations = _per_dimension(stride, dims), _per_dimension(dilation, dims)
    kernel = tuple(weight.shape[2:])
    padded = F.pad(input, _padding_per_side(padding, kernel, dilations))
    positions = [
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(padded.shape[2:], kernel, strides, dilations, strict=True)
    ]
    square = padded if dims == 2 else padded[:, :, None]
    one = (1,) * (2 - dims)
    patches = F.unfold(square, one + kernel, dilation=one + dilations, stride=one + strides)
    size = prod(weight.shape[1:])
    left = patches.reshape(len(input), groups, size, prod(positions)).transpose(-2, -1)
    right = weight.reshape(groups, weight.shape[0] // groups, size)
    if groups == 1:
        left, right = left.squeeze(1), weight.flatten(1)

    def finish(y: Tensor) -> Tensor:
        # The digital result is contiguous, so models call `view` on it.
        y = y.transpose(-2, -1).reshape(len(y), weight.shape[0], *positions).contiguous()
        return y if bias is None else y + bias.reshape(-1, *(1,) * dims)

    return left, right, finish


def _per_dimension(value: Any, dims: int) -> tuple[int, ...]:
    """A number or a sequence as one number per dimension."""
    return tuple(value) * (dims if len(value) == 1 else 1) if isinstance(value, (tuple, list)) else (value,) * dims


def _padding_per_side(padding: Any, kernel: tuple[int, ...], dilations: tuple[int, ...]) -> list[int]:
    """Number of zeros to add before and after each axis, the last axis first, as `F.pad` takes them."""
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        sides = [(n // 2, n - n // 2) for n in totals]
    else:
        sides = [(n, n) for n in _per_dimension(0 if padding == "valid" else padding, len(kernel))]
    return [n for before, after in reversed(sides) for n in (before, after)]
