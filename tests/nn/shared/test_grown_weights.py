"""Weights that grow after the conversion are told, since ranges were calibrated with smaller ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import ohmformer as of
from ohmformer.nn.shared.grown_weights import GrownWeights
from tests.nn.operands.test_rotation import statics

X = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
Change = Callable[[nn.Module], object]


class Tenfold(nn.Module):
    """Multiplies weights by 10."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w * 10


def converted() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    result = of.convert(model, of.load("nvm_ideal"), sample=X)
    assert isinstance(result, nn.Sequential)
    return result


def run(model: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    with torch.no_grad(), of.samples(range(len(x))):
        y = model(x)
    assert isinstance(y, torch.Tensor)
    return y


def in_place(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Linear)
    layer.weight.data.mul_(2)


GROWING: list[Change] = [
    parametrizations.orthogonal,
    lambda layer: parametrize.register_parametrization(layer, "weight", Tenfold()),
    in_place,
]


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("grow", GROWING)
def test_weights_that_grow_are_told_until_ranges_are_calibrated_again(grow: Change, called: bool) -> None:
    model = converted()
    if called:
        run(model)
    grow(model[0])
    with pytest.warns(GrownWeights, match=r"the weights of 0 are \S+ times as large as .* calibrate_ranges\(model\)"):
        run(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of.set_chip(model, 1)
        run(model)  # once is enough
    of.calibrate_ranges(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, X / 2)
        run(of.set_chip(model, 3) or model)


@pytest.mark.parametrize("change", [lambda layer: None, parametrizations.weight_norm, parametrizations.spectral_norm])
def test_weights_of_about_the_same_size_say_nothing(change: Change) -> None:
    model = converted()
    change(model[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model)


def test_factors_between_inputs_and_weights_are_no_growth() -> None:
    """Factors that were set after the conversion enlarge what is in the cells, not the weights."""
    model = converted()
    statics(model)["0"].scaling = torch.full((16,), 10.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GrownWeights)
        run(model)
    of.calibrate_ranges(model)
    statics(model)["0"].scaling = torch.full((16,), 100.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GrownWeights)
        run(model)
