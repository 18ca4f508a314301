"""The error that is expected in closed form is the one that simulated cells make."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ohmformer as of
from ohmformer import Conditioning, KVClip
from ohmformer.nn.calibration import recipes
from ohmformer.nn.calibration.expected_error import expected_error
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.observation import Observation
from tests.cases import quick_first
from tests.nn.models import SelfAttention

TOKENS = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(2)) * torch.linspace(0.3, 2, 24)
HARDWARE = of.load("clipformer_tcad_2024")
DRAWS = 600
NOISES: list[dict[str, Any]] = [
    {"kind": "sqrt_range", "gamma": 4.0, "sigma": 0.2},
    {"kind": "uniform", "sigma": 0.1},
    {"kind": "none"},
]


def operand(noise: dict[str, Any], axis: str, spec: Conditioning | None) -> KVOperand:
    hardware = of.replace(HARDWARE, "attention.array.cell.write_noise", noise)
    hardware = of.replace(hardware, "attention.array.inputs.bits", 16)  # inputs are taken as exact
    converted = of.convert(SelfAttention(), hardware, sample=TOKENS, level="noise")
    (found,) = (op for op in crossbars(converted).operands if isinstance(op, KVOperand) and op.axis == axis)
    g = torch.Generator().manual_seed(5)
    tokens = torch.randn(2, 4, 9, 6, generator=g) * torch.linspace(0.2, 1.5, 6) + 0.5
    x = torch.randn(2, 4, 9, 6, generator=g) if axis == "K" else torch.randn(2, 4, 9, 9, generator=g).softmax(-1)
    found.watched.append(Observation.of(x, tokens, None, axis))
    if spec is not None:
        found.condition(recipes.fitted(found, spec))
    found.x_range = found.watched[0].x.abs().max() * 4
    return found


@pytest.mark.parametrize("axis", quick_first(["K", "V"], 1))
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise["kind"])
@pytest.mark.parametrize(
    "spec", [None, Conditioning(mean=True, basis="balanced", scale="token", range=0.7, radix=1, unbiased=True)],
    ids=["plain", "conditioned"],
)  # fmt: skip
def test_it_is_the_mean_square_of_the_error_that_is_drawn(axis: str, noise: Any, spec: Conditioning | None) -> None:
    """Mean of `DRAWS` draws over chips, for each of 4 heads: within 5 standard errors, 1e-6 by chance for each."""
    found = operand(noise, axis, spec)
    if spec is None:
        found.clip = KVClip(alpha=1.0, beta=0.5)
    seen = found.watched[0]
    exact = seen.x @ (seen.tokens.transpose(-2, -1) if axis == "K" else seen.tokens)
    expected = expected_error(found, found.watched)
    drawn = []
    for chip in range(DRAWS if noise["kind"] != "none" else 2):
        found.state.chip = chip
        found.state.threads.call.uses.clear()
        with of.samples(range(2)):
            drawn.append(found.product(seen.x, seen.tokens) - exact)
    made = torch.stack(drawn)
    if axis == "K":  # what all tokens have in common on average is ignored by softmax
        made = made - made.mean(dim=0).mean(dim=-1, keepdim=True)
    errors = made.square().mean(dim=(1, 3, 4))
    spread = 5 * errors.std(dim=0) / len(errors) ** 0.5 + 2e-3 * expected + 1e-9
    assert bool(((errors.mean(dim=0) - expected).abs() <= spread).all()), (errors.mean(dim=0), expected)
