"""Full scale above the largest magnitude: residual writing makes use of it, and it is chosen where it helps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ohmformer as of
from ohmformer import BadInput, Conditioning, WeightMitigation
from ohmformer.array.codes.code_moments import moments_of_values
from ohmformer.array.residual.spec import Residual
from ohmformer.array.spec import Crossbar
from ohmformer.nn.calibration.budget_recipes import Combined
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand
from tests.nn.models import vit
from tests.nn.operands.test_rotation import IMAGES

QUIET = of.replace(of.load("clipformer_tcad_2024"), "projection.array.cell.write_noise.gamma", 0.0)


def hardware(gamma: float) -> of.Accelerator:
    return of.replace(QUIET, "attention.array.cell.write_noise.gamma", gamma)


def error(array: Crossbar, share: float) -> float:
    """Mean square error of Gaussian values, 64 with one range, for a full scale."""
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = share * x.abs().amax(dim=1, keepdim=True) / array.max_code
    mean, variance = moments_of_values((x / unit).clamp(-array.max_code, array.max_code), array)
    return float(((mean * unit - x).square() + variance * unit.square()).mean())


def test_room_for_corrections_helps_residual_writing_and_nothing_else() -> None:
    array = hardware(2.0).attention.array  # type: ignore[union-attr]
    at_once, residual = of.replace(array, "radix", 2), of.replace(of.replace(array, "residual", {}), "radix", 2)
    assert error(residual, 1.4) < 0.7 * error(residual, 1.0)
    assert error(at_once, 1.4) > error(at_once, 1.0)


def test_the_weaker_the_noise_the_more_room_is_chosen() -> None:
    means = {}
    for gamma in (1.0, 7.0):
        converted = of.convert(vit().eval(), hardware(gamma), sample=IMAGES, level="noise")
        of.calibrate(converted, IMAGES, remedy=[Combined(basis="hadamard", residual=Residual())])
        operands = [operand for operand in crossbars(converted).operands if isinstance(operand, KVOperand)]
        ranges = [operand.conditioner.spec.range for operand in operands if operand.conditioner is not None]
        assert len(ranges) == len(operands)
        means[gamma] = sum(ranges) / len(ranges)
    assert means[1.0] > 1.2
    assert means[1.0] > means[7.0]


@pytest.mark.parametrize("value", [0, -1, 4.1, float("nan"), "500 %", "wide"])
def test_ranges_outside_of_0_to_4_are_refused(value: Any) -> None:
    for make in (lambda: Conditioning(range=value), lambda: WeightMitigation(range=value, residual=Residual())):
        with pytest.raises(BadInput, match="range") as refused:
            make()
        assert "\n" not in str(refused.value)
    assert Conditioning(range="140 %").range == pytest.approx(1.4)
