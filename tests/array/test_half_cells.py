"""Matrices in half precision: how far they are from those in float32, and that products use what they hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ohmformer.array import fold, folded_product, half_cells, program
from ohmformer.array.folded import Folded
from ohmformer.array.half_cells import halved
from ohmformer.streams import Stream
from tests.build import PROPORTIONAL, array, cell

STEP = 2.0**-11


def folded(*shape: int, scale: float = 1.0) -> Folded:
    """A matrix of random values, one code of which is `scale`."""
    generator = torch.Generator().manual_seed(3)
    values = 127 * scale * torch.randn(*shape, generator=generator)
    return Folded(values, None, None, torch.full((1, 1), scale))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e6, 1e30])
def test_values_are_as_near_as_half_precision_allows(scale: float) -> None:
    cells = folded(64, 48, scale=scale)
    half = halved(cells)
    assert half.values.dtype is torch.float16
    normal = cells.values.abs() > scale * 2.0**-14
    error = (half.matrix - cells.values).abs() / cells.values.abs()
    assert float(error[normal].max()) <= 1.001 * STEP
    assert float(error[normal].max()) > 0.5 * STEP, "the bound is far from what is lost"


def test_whole_codes_are_exact() -> None:
    codes, unit = torch.arange(-2048.0, 2048.0).reshape(64, 64), torch.tensor([[0.0371]])
    half = halved(Folded(codes * unit, None, None, unit))
    assert torch.equal(half.values.float(), codes)


def test_codes_beyond_half_precision_are_not_lost() -> None:
    codes = torch.tensor([[3e6, -1e5, 7.0]])
    half = halved(Folded(codes * 0.5, None, None, torch.tensor([[0.5]])))
    assert torch.allclose(half.matrix, codes * 0.5, rtol=STEP, atol=1e-2)


def test_a_matrix_of_zeros() -> None:
    half = halved(Folded(torch.zeros(4, 4), None, None, torch.ones(1, 1)))
    assert torch.equal(half.matrix, torch.zeros(4, 4))


@pytest.mark.parametrize("unit", [(1, 1), (70, 1)])
def test_products_are_those_of_the_values_held(unit: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_cells, "BLOCK_SIZE", {"cpu": 1000})  # several blocks, the last one smaller
    cells = replace(folded(70, 48), unit=torch.rand(*unit) + 0.5)
    half, x = halved(cells), torch.randn(2, 5, 48)
    assert torch.allclose(half.times(x), x @ half.matrix.T, rtol=1e-5, atol=1e-3)
    assert half.times(x).shape == cells.times(x).shape


def test_reads_have_the_noise_of_full_precision() -> None:
    hardware = array(rows=16, cell=cell(read_noise=PROPORTIONAL))
    w, codes = torch.randn(32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(-16.0, 16.0).expand(2, 32)
    cells = fold(program(w, hardware))
    full, half = (folded_product(codes, each, hardware, Stream(5)) for each in (cells, halved(cells)))
    quiet = codes @ cells.values.T
    assert float((half - full).abs().max()) < 1e-3 * float((full - quiet).abs().max())
