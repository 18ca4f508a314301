"""Rotations that spread outliers and change no product: (x R)(w R)^T = x w^T for an orthonormal R.

R is a randomized Hadamard matrix: fixed random signs, then a Hadamard transform. Sizes with an odd factor m > 1 have no
such matrix; for them the transform is the Kronecker product of the Hadamard matrix of the largest power of two and the
discrete cosine transform of m points (DCT-II), which is orthonormal for any m. No entry of R is larger than
sqrt(2 / size), so one large value becomes `size` small ones. Source of the idea, for quantized weights and activations:
QuIP# (Tseng et al. 2024, arXiv 2402.04396) and QuaRot (Ashkboos et al. 2024, arXiv 2404.00456).

Shapes: n values of a vector, a power of two times an odd number m.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from ohmformer.errors import BadInput
from ohmformer.mitigation.rotation_ops import odd_part
from ohmformer.precision import widened

_CPU = torch.device("cpu")
_BLOCK = 64
"""Largest Hadamard matrix that is multiplied by; a larger power of two is split into factors up to this size."""


def hadamard(size: int, *, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> Tensor:
    """The orthonormal matrix [size, size] by which `rotate` multiplies after applying the signs.

    For a power of two it is Sylvester's Hadamard matrix over sqrt(size), which is symmetric.

    Raises:
        BadInput: the size is below 1.
    """
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for factor in _factors(_checked(size)):
        matrix = torch.kron(matrix, _factor(factor, _CPU, torch.float64))
    return matrix.to(device, dtype)


def signs(size: int, *, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> Tensor:
    """The signs [size], each +1 or -1, by which `rotate` multiplies first: bits of SHAKE-128, the same everywhere.

    Raises:
        BadInput: the size is below 1.
    """
    return _signs(_checked(size), device, dtype)


def rotate(x: Tensor) -> Tensor:
    """Multiply x by the orthonormal R = diag(signs(n)) hadamard(n), in at least single precision.

    So rotate(x) @ rotate(w).T equals x @ w.T up to rounding. Gradients pass.

    Args:
        x: real values [..., n].

    Returns:
        Rotated values of the same shape and dtype.

    Raises:
        BadInput: the last axis is empty.
    """
    n, wide = _checked(x.shape[-1]), widened(x, "x")
    return _transform(wide * _signs(n, x.device, wide.dtype)).to(x.dtype)


def _transform(x: Tensor) -> Tensor:
    """x[..., n] @ hadamard(n), factor by factor, in fewer than n^2 operations."""
    shape, n = x.shape, x.shape[-1]
    with full_precision(x.device.type):
        for factor in reversed(_factors(n)):
            matrix = _factor(factor, x.device, x.dtype)
            # The last factor is transformed and moved to the front, so the order is restored after all factors.
            parts = (x.reshape(-1, factor) @ matrix).reshape(-1, n // factor, factor)
            x = parts.transpose(-2, -1).reshape(-1, n)
    return x.reshape(shape)


def full_precision(device: str) -> AbstractContextManager[object]:
    """Context in which autocast does not round products to half precision.

    Half precision would add a larger error than the quantizer that follows.

    Args:
        device: device type, such as "cpu".
    """
    lowered = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if lowered else nullcontext()


def _checked(size: int) -> int:
    """The size, which must be at least 1."""
    if size < 1:
        raise BadInput(f"size = {size}: a rotation needs at least one value; give vectors that are not empty")
    return size


def _factors(size: int) -> tuple[int, ...]:
    """Sizes of the matrices whose Kronecker product is the transform: powers of two, then the odd factor if above 1."""
    odd = odd_part(size)
    power, factors = size // odd, []
    while power > 1:
        factors.append(min(power, _BLOCK))
        power //= factors[-1]
    return tuple(factors) + ((odd,) if odd > 1 else ())


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # the cached tensor may be used with gradients later
def _factor(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sylvester's matrix of a power of two, or the DCT-II matrix [point, frequency] of an odd size; orthonormal."""
    n = torch.arange(size, dtype=torch.float64)
    if size & (size - 1):
        matrix = torch.cos(math.pi / size * (n[:, None] + 0.5) * n) * math.sqrt(2 / size)
        matrix[:, 0] = 1 / math.sqrt(size)
    else:
        matrix = torch.ones(1, 1, dtype=torch.float64)
        pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
        while len(matrix) < size:
            matrix = torch.kron(matrix, pair)
    return matrix.to(device, dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _signs(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    digest = hashlib.shake_128(b"signs of the rotation").digest(-(-size // 8))
    bits = [byte >> position & 1 for byte in digest for position in range(8)][:size]
    return (1 - 2 * torch.tensor(bits, dtype=dtype)).to(device)
