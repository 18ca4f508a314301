"""Worn cells of K and V beneath a cache, and compensated weights of a converted model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import ohmformer as of
from tests.nn.operands.test_kv_cache import NOISY, TOKENS, converted, full, relative, stepwise

WEAR = {"kind": "weibull", "stuck_at_g_max": 0.4, "w": 0.08, "n0": 1e3}
DRIFT = {"kind": "power_law", "t0": "1 s", "nu": 0.1}


def worn(writes: float, endurance: float = 1e6) -> of.Accelerator:
    hardware = of.replace(NOISY, "attention.array.cell.endurance", endurance)
    hardware = of.replace(hardware, "attention.array.cell.wear", WEAR)
    return of.replace(hardware, "attention.array.writes", writes)


def compensated(how: str, age: float, **fields: Any) -> of.Accelerator:
    hardware = of.replace(NOISY, "projection.array.cell.drift", {**DRIFT, "t0": 1.0})
    hardware = of.replace(hardware, "projection.array.age", age)
    for path, value in fields.items():
        hardware = of.replace(hardware, f"projection.array.{path}", value)
    return of.replace(hardware, "projection.array.drift_compensation", how)


@pytest.mark.parametrize("level", ["noise", "array"])
@pytest.mark.parametrize("endurance", [1e6, math.inf])
@pytest.mark.slow
def test_a_cache_of_worn_cells_gives_what_one_pass_gives(endurance: float, level: str) -> None:
    """With stuck cells, which belong to places, and with a smaller window alone, which does not."""
    hardware = worn(1e5, endurance)
    once, steps = full(converted(hardware, level=level)), stepwise(converted(hardware, level=level))
    assert relative(steps, once) < 1e-5
    new = full(converted(worn(0.0, endurance), level=level))
    assert relative(once, new) > 1e-2
    assert torch.equal(new, full(converted(NOISY, level=level))), "new cells are those without wear"


@pytest.mark.parametrize("level", ["cell", "array", "noise"])
@pytest.mark.parametrize("how", ["global", "column"])
@pytest.mark.slow
def test_a_model_whose_weights_drift_alike_is_that_of_new_weights(how: str, level: str) -> None:
    new, old = (full(converted(compensated(how, age), level=level), TOKENS[:, :4]) for age in (0.0, 1e5))
    plain = full(converted(compensated("none", 1e5), level=level), TOKENS[:, :4])
    assert relative(old, new) < 1e-3
    assert relative(plain, new) > 0.1


def test_gradients_pass_the_compensated_matrix() -> None:
    grads = []
    for how in ("none", "global"):
        layer = torch.nn.Linear(12, 7, bias=False)
        torch.manual_seed(0)
        torch.nn.init.normal_(layer.weight)
        x = torch.ones(2, 12, requires_grad=True)
        model = of.convert(layer, compensated(how, 1e5), sample=torch.randn(4, 12), level="noise")
        model(x).sum().backward()
        assert x.grad is not None
        grads.append(x.grad)
    assert torch.allclose(grads[1], grads[0] * (1e5**0.1), rtol=1e-3)


def test_keys_and_values_refuse_a_compensation_when_they_are_converted() -> None:
    hardware = of.replace(NOISY, "attention.value.array.drift_compensation", "global")
    with pytest.raises(
        of.BadInput, match=r"hardware.attention.value.array.drift_compensation = 'global': holds values"
    ):
        converted(hardware)
