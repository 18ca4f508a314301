"""Weights in any memory layout are weights: they are captured, follow changes, and give what contiguous ones give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ohmformer as of
from ohmformer.nn.convert.handle import crossbars

HARDWARE = of.load("clipformer_tcad_2024")
IMAGES = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def values(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Weighs(nn.Module):
    """One parameter, multiplied in a given way."""

    def __init__(self, weight: Tensor, multiply: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.multiply = multiply

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x, self.weight)


def _chunks(x: Tensor, w: Tensor) -> Tensor:
    q, k, v = w.chunk(3)
    return F.linear(x, q) + F.linear(x, k) * F.linear(x, v)


def _grouped(x: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(x, w, groups=2)


def _row(x: Tensor, w: Tensor) -> Tensor:
    return F.conv1d(x.flatten(2), w)


CASES: dict[str, tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]] = {
    "channels last": (values(6, 4, 3, 3).to(memory_format=torch.channels_last), F.conv2d),
    "channels last, groups": (values(6, 2, 3, 3).to(memory_format=torch.channels_last), _grouped),
    "convolution, transposed": (values(4, 6, 3, 3).transpose(0, 1), F.conv2d),
    "convolution, expanded": (values(1, 1, 3, 3).expand(6, 4, 3, 3), F.conv2d),
    "convolution, every second": (values(6, 4, 6, 6)[:, :, ::2, ::2], F.conv2d),
    "convolution in one dimension": (values(3, 4, 6).permute(2, 1, 0), _row),
    "linear, transposed": (values(8, 6).t(), F.linear),
    "linear, expanded": (values(1, 8).expand(6, 8), F.linear),
    "linear, every second": (values(6, 16)[:, ::2], F.linear),
    "parts, transposed": (values(8, 18).t(), _chunks),
    "parts, every second": (values(18, 16)[:, ::2], _chunks),
    "einsum by heads": (values(2, 8, 5), lambda x, w: torch.einsum("bcxd,hde->bcxhe", x, w)),
    "einsum, weights first": (values(2, 8, 5), lambda x, w: torch.einsum("hde,bcxd->bcxhe", w, x)),
}


@pytest.mark.filterwarnings("ignore::ohmformer.GrownWeights")
@pytest.mark.parametrize("name", CASES)
def test_weights_of_any_layout_are_captured_and_noisy_alike(name: str) -> None:
    weight, multiply = CASES[name]
    converted = of.convert(Weighs(weight, multiply).eval(), HARDWARE, sample=IMAGES)
    assert of.capture_table(converted).digital == ()
    plain = of.convert(Weighs(weight.contiguous(), multiply).eval(), HARDWARE, sample=IMAGES)
    with torch.no_grad():
        y = converted(IMAGES)
        if not name.startswith("parts"):  # names of parts hold their place in memory
            torch.testing.assert_close(y, plain(IMAGES))
        assert not torch.equal(y, multiply(IMAGES, weight))
        if "expanded" not in name:
            converted.weight.mul_(2)
            assert float((converted(IMAGES) - y).norm()) > 0.5 * float(y.norm())
    converted(IMAGES).sum().backward()
    assert converted.weight.grad is not None


def test_weights_between_those_of_others_are_not_taken_for_theirs() -> None:
    class Interleaved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            both = values(12, 8)
            self.even, self.odd = nn.Parameter(both[::2]), nn.Parameter(both[1::2])

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.odd) + F.linear(x, self.odd[:3]).repeat(1, 1, 1, 2) + F.linear(x, self.even)

    converted = of.convert(Interleaved(), HARDWARE, sample=IMAGES)
    assert sorted(operand.name for operand in crossbars(converted).operands) == ["even", "odd", "odd#0"]


def test_weights_that_are_read_in_two_ways_have_two_names_and_cells_of_their_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(values(8, 2, 4))

        def forward(self, x: Tensor) -> Tensor:
            one = torch.einsum("bcxd,dhe->bcxhe", x, self.weight).flatten(-2)
            return one - 2 * torch.einsum("bcxd,dhe->bcxeh", x, self.weight).flatten(-2)

    converted = of.convert(Twice(), HARDWARE, sample=IMAGES)
    assert [operand.name for operand in crossbars(converted).operands] == ["", "#as2"]
