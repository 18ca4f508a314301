"""Convolutions as products of patches with a matrix of weights per group.

Shapes: B images, C channels in, G groups, O channels out, L places, I = C / G times the size of the window.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CONVOLUTIONS = {F.conv1d, F.conv2d, torch.conv1d, torch.conv2d}
"""The functions that `as_product` reads."""

Product = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]


def as_product(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Product | None:
    """A convolution as patches[B, G, L, I], weights[G, O / G, I], and what makes the result of [B, G, L, O / G].

    One group needs no axis: patches[B, L, I], weights[O, I]. None for input without a batch. The weights are a copy
    where their strides fit no matrix, as in the memory format `channels_last`.
    """
    dims = weight.dim() - 2
    if input.dim() != weight.dim():
        return None
    steps, spread = _each(stride, dims), _each(dilation, dims)
    window = tuple(weight.shape[2:])
    padded = F.pad(input, _margins(padding, window, spread))
    places = [
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(padded.shape[2:], window, steps, spread, strict=True)
    ]
    square = padded if dims == 2 else padded[:, :, None]
    one = (1,) * (2 - dims)
    patches = F.unfold(square, one + window, dilation=one + spread, stride=one + steps)
    size = prod(weight.shape[1:])
    left = patches.reshape(len(input), groups, size, prod(places)).transpose(-2, -1)
    right = weight.reshape(groups, weight.shape[0] // groups, size)
    if groups == 1:
        left, right = left.squeeze(1), weight.flatten(1)

    def finish(y: Tensor) -> Tensor:
        y = y.transpose(-2, -1).reshape(len(y), weight.shape[0], *places)
        return y if bias is None else y + bias.reshape(-1, *(1,) * dims)

    return left, right, finish


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) * (dims if len(value) == 1 else 1) if isinstance(value, (tuple, list)) else (value,) * dims


def _margins(padding: Any, window: tuple[int, ...], spread: tuple[int, ...]) -> list[int]:
    """Zeros to add before and after each axis, the last axis first, as `F.pad` takes them."""
    if padding == "same":
        whole = [d * (k - 1) for k, d in zip(window, spread, strict=True)]
        sides = [(n // 2, n - n // 2) for n in whole]
    else:
        sides = [(n, n) for n in _each(0 if padding == "valid" else padding, len(window))]
    return [n for before, after in reversed(sides) for n in (before, after)]
