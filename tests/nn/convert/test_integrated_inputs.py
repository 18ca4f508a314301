"""One conversion for all input bits has a price and no simulation: accuracy refuses it by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ohmformer as of
from ohmformer.array.crossbar import program
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Rule

HARDWARE = of.load("clipformer_tcad_2024")


@pytest.mark.parametrize("level", ["cell", "array", "noise"])
def test_a_model_is_refused_at_every_level(level: of.array.spec.Level) -> None:
    hardware = of.replace(HARDWARE, "projection.array.inputs.kind", "integrated")
    model = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(BadInput, match=r"^hardware.projection.array.inputs.kind = 'integrated': .* compute the cost"):
        of.convert(model, hardware, sample=torch.randn(2, 8), level=level)


def test_a_rule_is_named_by_its_pattern() -> None:
    array = of.replace(HARDWARE, "projection.array.inputs.kind", "integrated").projection.array  # type: ignore[union-attr]
    model = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(BadInput, match=r"^rules\['0'\].array.inputs.kind = 'integrated'"):
        of.convert(model, HARDWARE, sample=torch.randn(2, 8), rules={"0": Rule(array=array)})


def test_an_array_is_not_programmed() -> None:
    array = of.replace(of.load_crossbar("clipformer_2024"), "inputs.kind", "integrated")
    with pytest.raises(BadInput, match=r"^array.inputs.kind = 'integrated'"):
        program(torch.eye(4), array, stream=1)
