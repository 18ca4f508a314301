"""Rotations: orthonormal for every size, exact in products, and spreading."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ohmformer.errors import BadInput
from ohmformer.mitigation.hadamard import hadamard, rotate, signs

SIZES = [1, 2, 3, 5, 7, 12, 49, 64, 96, 192, 385, 576]


@pytest.mark.parametrize("size", SIZES)
def test_orthonormal_and_spreading(size: int) -> None:
    H = hadamard(size, dtype=torch.float64)
    torch.testing.assert_close(H @ H.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(H.abs().amax()) <= math.sqrt(2 / size) + 1e-12 or size == 1


@pytest.mark.parametrize("size", [2, 8, 128])
def test_sylvester(size: int) -> None:
    H = hadamard(size, dtype=torch.float64)
    torch.testing.assert_close(H.abs(), torch.full_like(H, 1 / math.sqrt(size)))
    torch.testing.assert_close(H, H.T)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 300), seed=st.integers(0, 1000))
def test_products_are_unchanged(size: int, seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    x, w = (torch.randn(rows, size, dtype=torch.float64, generator=numbers) for rows in (3, 4))
    torch.testing.assert_close(rotate(x) @ rotate(w).T, x @ w.T, rtol=0, atol=1e-11 * size)
    R = rotate(torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(rotate(x) @ R.T, x, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("size", SIZES)
def test_rotate_is_the_matrix_with_signs(size: int) -> None:
    eye = torch.eye(size, dtype=torch.float64)
    H, s = hadamard(size, dtype=torch.float64), signs(size, dtype=torch.float64)
    torch.testing.assert_close(rotate(eye), s[:, None] * H, rtol=0, atol=1e-12)


def test_outlier_is_spread() -> None:
    x = torch.zeros(2, 3, 576)
    x[..., 17] = 1.0
    assert float(rotate(x).abs().amax()) <= math.sqrt(2 / 576) + 1e-6


def test_signs_are_fixed_and_balanced() -> None:
    found = signs(4096)
    assert torch.equal(found[:576], signs(576))
    assert set(found.tolist()) == {-1.0, 1.0}
    assert abs(float(found.mean())) < 5 / math.sqrt(4096)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_dtype(dtype: torch.dtype) -> None:
    x = torch.linspace(-1, 1, 48).to(dtype)
    found = rotate(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), rotate(x.float()), rtol=2**-8, atol=1e-6)


def test_autocast_does_not_round() -> None:
    x = torch.linspace(-1, 1, 96)
    with torch.autocast("cpu", torch.bfloat16):
        found = rotate(x)
    assert torch.equal(found, rotate(x))


def test_gradients_pass() -> None:
    x = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)

    def turned(value: Tensor) -> Tensor:
        return rotate(value)

    assert torch.autograd.gradcheck(turned, (x,))


def test_empty_is_refused() -> None:
    with pytest.raises(BadInput, match="at least one value"):
        rotate(torch.zeros(3, 0))


def test_first_use_in_inference_mode_does_not_hinder_gradients() -> None:
    with torch.inference_mode():
        rotate(torch.ones(1, 22))
    x = torch.ones(1, 22, requires_grad=True)
    rotate(x).sum().backward()
    assert x.grad is not None
