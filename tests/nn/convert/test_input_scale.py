"""Inputs far beyond those of the calibration saturate, and the first call with such inputs says so."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from tests.nn.models import SelfAttention

HARDWARE = of.load("clipformer_tcad_2024")
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))


def run(model: nn.Module, inputs: Tensor) -> None:
    with torch.no_grad(), of.samples(range(len(inputs))):
        model(inputs)


@pytest.mark.parametrize("share", [0.1, 1e-3, 1e-6])
def test_a_sample_that_is_a_part_of_later_inputs_is_told_once(share: float) -> None:
    model = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS * share)
    with pytest.warns(of.BeyondCalibration, match="x reaches .* ranges were calibrated on values up to"):
        run(model, TOKENS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, TOKENS)


def test_inputs_of_the_size_of_the_sample_say_nothing() -> None:
    model = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, TOKENS * 2)
        run(model, TOKENS * 0)


def test_more_batches_widen_what_is_expected(tmp_path: Path) -> None:
    model = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS / 1000)
    of.calibrate_ranges(model, [TOKENS])
    of.save(model, tmp_path / "model.safetensors")
    again = of.restore(SelfAttention().eval(), tmp_path / "model.safetensors")
    other = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS / 1000)
    other.load_state_dict(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in (model, again, other):
            run(each, TOKENS)
