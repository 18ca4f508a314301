"""In which precision the size of read noise is computed."""

import math

import pytest
import torch

from ohmformer import precision
from ohmformer.precision import coarse, coarse_product


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with instructions for products of bfloat16 numbers; PyTorch computes the same without them, slowly."""
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda: True)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(("inputs", "most"), [(1, 0.006), (64, 0.0025), (1536, 0.0022)])
@pytest.mark.parametrize("top", [1, 127, 32767])
def test_the_size_of_read_noise_is_off_by_some_thousandths(inputs: int, most: float, top: int) -> None:
    generator = torch.Generator().manual_seed(inputs + top)
    x = torch.randint(-top, top + 1, (40, inputs), generator=generator).float()
    variance = (torch.rand(30, inputs, generator=generator) * 260).square() * 1e-9
    found = coarse_product(coarse(x.square()), coarse(variance))
    exact = x.double().square() @ variance.double().T
    assert found.dtype is torch.float32
    assert torch.equal(found == 0, exact == 0)
    error = (found.double().sqrt() / exact.sqrt() - 1)[exact > 0]
    assert float(error.abs().max()) < most
    assert inputs == 1 or (float(error.square().mean().sqrt()) < 0.0013 and abs(float(error.mean())) < 0.0002)


@pytest.mark.usefixtures("bfloat16")
def test_the_size_of_read_noise_does_not_depend_on_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-127, 128, (3, 50, 384), generator=generator).float()
    variance = torch.rand(90, 384, generator=generator)
    together = coarse_product(coarse(x.square()), coarse(variance))
    alone = torch.stack([coarse_product(coarse(each.square()), coarse(variance)) for each in x])
    assert float((together / alone - 1).abs().max()) <= 2**-7  # one step of bfloat16
    assert float((together != alone).float().mean()) < 1e-3


@pytest.mark.usefixtures("bfloat16")
def test_double_precision_stays_exact() -> None:
    a, b = torch.rand(4, 5, dtype=torch.float64), torch.rand(3, 5, dtype=torch.float64)
    assert coarse(a) is a
    assert torch.equal(coarse_product(a, b), a @ b.T)


def test_without_such_instructions_nothing_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda: False)
    a, b = torch.full((1, 1), 1 + 2**-12), torch.full((1, 1), math.pi)
    assert coarse(a) is a
    assert torch.equal(coarse_product(a, b), a @ b.T)
