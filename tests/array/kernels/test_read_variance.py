"""The polynomial is the square of what `read_std` says."""

import pytest
import torch

from ohmformer.array.kernels import read_variance
from ohmformer.device import noise
from tests.build import FLICKER, NONE, PROPORTIONAL, UNIFORM, cell

SQRT = {"kind": "sqrt", "sigma": 0.03}


@pytest.mark.parametrize("kind", [NONE, PROPORTIONAL, UNIFORM, SQRT], ids=lambda kind: kind["kind"])
def test_the_polynomial_is_the_variance(kind: dict[str, object]) -> None:
    one = cell(read_noise=kind)
    g = torch.linspace(0, 2e-5, 41, dtype=torch.float64)
    found = read_variance.coefficients(one)
    assert found is not None
    v0, v1, v2 = found
    # Both sides round in float64.
    torch.testing.assert_close(v0 + v1 * g + v2 * g * g, noise.read_std(g, one).square(), rtol=1e-12, atol=1e-30)


def test_other_kinds_have_none() -> None:
    assert read_variance.coefficients(cell(read_noise=FLICKER)) is None
