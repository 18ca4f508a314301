"""Rotations that change no product and spread outliers: (x R)(w R)^T = x w^T for an orthonormal R.

R is a randomised Hadamard matrix: fixed signs, then a Hadamard transform. Sizes with an odd factor m have no Hadamard
matrix of this kind; there it is the Kronecker product of the matrix of the largest power of two with a discrete cosine
transform of m points (DCT-II), which is orthonormal for any m. No entry of R is above sqrt(2 / size), so a large value
becomes `size` small ones. The idea for quantised weights and activations is that of QuIP# (Tseng et al. 2024,
arXiv 2402.04396) and QuaRot (Ashkboos et al. 2024, arXiv 2404.00456).
"""

from __future__ import annotations

import hashlib
import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.errors import BadInput
from ohmformer.mitigation.rotation_ops import odd_part

_CPU = torch.device("cpu")
_BLOCK = 64
"""A transform of 2^k points is done in products with Hadamard matrices of at most so many."""


def hadamard(size: int, *, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> Tensor:
    """The orthonormal matrix [size, size] that `rotate` multiplies with, without its signs.

    For a power of two it is Sylvester's Hadamard matrix over sqrt(size), which is symmetric.

    Raises:
        BadInput: the size is below 1.
    """
    found = torch.ones(1, 1, dtype=torch.float64)
    for factor in _factors(_checked(size)):
        found = torch.kron(found, _factor(factor, _CPU, torch.float64))
    return found.to(device, dtype)


def signs(size: int, *, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> Tensor:
    """The fixed signs [size], each +1 or -1, that `rotate` begins with: bits of SHAKE-128, the same everywhere."""
    return _signs(_checked(size), device, dtype)


def rotate(x: Tensor) -> Tensor:
    """x[..., n] times the orthonormal R = diag(signs(n)) hadamard(n), at least in single precision; keeps x's dtype.

    So rotate(x) @ rotate(w).T is x @ w.T but for rounding. Gradients pass.

    Raises:
        BadInput: the last axis is empty.
    """
    n, wide = _checked(x.shape[-1]), encoding.widened(x, "x")
    return _transform(wide * _signs(n, x.device, wide.dtype), inverse=False).to(x.dtype)


def rotate_back(x: Tensor) -> Tensor:
    """x[..., n] times R^T: the inverse of `rotate`.

    Raises:
        BadInput: the last axis is empty.
    """
    n, wide = _checked(x.shape[-1]), encoding.widened(x, "x")
    return (_transform(wide, inverse=True) * _signs(n, x.device, wide.dtype)).to(x.dtype)


def _transform(x: Tensor, *, inverse: bool) -> Tensor:
    """x[..., n] @ hadamard(n), or its transpose, factor by factor, which takes less than n^2 steps a vector."""
    shape, n = x.shape, x.shape[-1]
    with full_precision(x.device.type):
        for factor in reversed(_factors(n)):
            matrix = _factor(factor, x.device, x.dtype)
            # The last axis is transformed and becomes the first, so that after all factors each is in its place again.
            parts = (x.reshape(-1, factor) @ (matrix.T if inverse else matrix)).reshape(-1, n // factor, factor)
            x = parts.transpose(-2, -1).reshape(-1, n)
    return x.reshape(shape)


def full_precision(device: str) -> AbstractContextManager[object]:
    """Inside, autocast rounds no product to half precision, which would cost more than the quantiser that follows."""
    lowered = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if lowered else nullcontext()


def _checked(size: int) -> int:
    if size < 1:
        raise BadInput(f"size = {size}: a rotation needs at least one value; give vectors that are not empty")
    return size


def _factors(size: int) -> tuple[int, ...]:
    """Sizes of the matrices whose Kronecker product is the transform: powers of two, then an odd number if any."""
    odd = odd_part(size)
    power, found = size // odd, []
    while power > 1:
        found.append(min(power, _BLOCK))
        power //= found[-1]
    return tuple(found) + ((odd,) if odd > 1 else ())


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept may be needed for gradients later
def _factor(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sylvester's matrix of a power of two, or the DCT-II matrix [point, frequency] of an odd size; orthonormal."""
    n = torch.arange(size, dtype=torch.float64)
    if size & (size - 1):
        found = torch.cos(math.pi / size * (n[:, None] + 0.5) * n) * math.sqrt(2 / size)
        found[:, 0] = 1 / math.sqrt(size)
    else:
        found = torch.ones(1, 1, dtype=torch.float64)
        pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
        while len(found) < size:
            found = torch.kron(found, pair)
    return found.to(device, dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _signs(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    drawn = hashlib.shake_128(b"signs of the rotation").digest(-(-size // 8))
    bits = [byte >> place & 1 for byte in drawn for place in range(8)][:size]
    return (1 - 2 * torch.tensor(bits, dtype=dtype)).to(device)
