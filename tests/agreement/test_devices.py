"""Every device gives what a CPU gives: the same numbers without noise, the same distribution with it, all verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import ohmformer as of
from ohmformer.array.crossbar import program, write
from ohmformer.array.encoding import quantize
from ohmformer.array.folded import fold
from ohmformer.array.multiply import mvm
from ohmformer.array.spec import Crossbar
from tests.build import SQRT_RANGE, array, cell
from tests.nn.models import Decoder, vit

IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))
NOISY = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)
ALARM = 1e-6
"""Probability that a test of a distribution fails by chance."""


def quiet(hardware: of.Accelerator) -> of.Accelerator:
    """The accelerator without any noise."""
    for role in ("projection", "attention"):
        for kind in ("write_noise", "read_noise"):
            hardware = of.replace(hardware, f"{role}.array.cell.{kind}", {"kind": "none"})
    return hardware


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """Outputs of a model on its device, on the CPU."""
    place = next(model.parameters()).device
    with torch.no_grad(), of.samples(range(len(x))):
        y: Tensor = model(x.to(place))
    return y.cpu()


@pytest.mark.parametrize("level", ["noise", "array", "cell"])
def test_without_noise_all_devices_give_the_same_numbers(device: torch.device, level: Any) -> None:
    hardware = quiet(of.load("generic_amplitude"))
    expected = outputs(of.convert(vit(), hardware, sample=IMAGES, level=level), IMAGES)
    model = vit().to(device)
    found = outputs(of.convert(model, hardware, sample=IMAGES.to(device), level=level), IMAGES)
    # A sum in another order may move a value across the border of a code.
    assert torch.allclose(found, expected, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("level", ["noise", "array"])
def test_noise_is_drawn_again_to_the_bit_for_any_batch(device: torch.device, level: Any) -> None:
    model = of.convert(vit().to(device), NOISY, sample=IMAGES.to(device), level=level)
    whole = outputs(model, IMAGES)
    assert torch.equal(outputs(model, IMAGES), whole)
    with torch.no_grad(), of.samples([2]):
        alone = model(IMAGES[2:3].to(device)).cpu()
    assert torch.allclose(alone, whole[2:3], atol=1e-4)


def test_written_cells_have_one_distribution_on_all_devices(device: torch.device) -> None:
    hardware = array(cell=cell(write_noise=SQRT_RANGE))
    codes = torch.full((64, 64), 5.0)
    held = [
        fold(write(codes.to(place), hardware, stream=seed)).values.cpu() for seed, place in ((1, "cpu"), (2, device))
    ]
    assert stats.ks_2samp(*(each.flatten().numpy() for each in held)).pvalue > ALARM


def test_reads_have_one_distribution_on_all_devices(device: torch.device) -> None:
    hardware = of.load("generic_amplitude").projection.array
    assert isinstance(hardware, Crossbar)
    w, x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0)), torch.ones(400, 64)
    hardware = of.replace(hardware, "adc", {"bits": "ideal"})

    def read(place: Any, seed: int) -> np.ndarray[Any, Any]:
        programmed = program(w.to(place), hardware)
        return mvm(x.to(place), programmed, stream=seed)[:, 0].cpu().numpy()

    assert stats.ks_2samp(read("cpu", 1), read(device, 2)).pvalue > ALARM


def test_a_cache_gives_what_one_pass_gives(device: torch.device) -> None:
    tokens = TOKENS.to(device)
    model = of.convert(Decoder().to(device).eval(), NOISY, sample=tokens, level="noise")
    with torch.no_grad(), of.samples(range(len(tokens))):
        whole, past, steps = model(tokens), [], []
        for n in range(tokens.shape[1]):
            y, past = model(tokens[:, n : n + 1], past)
            steps.append(y)
    assert torch.allclose(torch.cat(steps, dim=1).cpu(), whole.cpu(), atol=1e-3)


def test_what_is_calibrated_is_saved_and_restored(device: torch.device, tmp_path: Path) -> None:
    model = of.convert(vit().to(device), NOISY, sample=IMAGES.to(device), level="noise")
    of.calibrate(model, IMAGES.to(device))
    before = outputs(model, IMAGES)
    of.save(model, tmp_path / "model.pt")
    restored = of.restore(vit().to(device), tmp_path / "model.pt")
    assert torch.equal(outputs(restored, IMAGES), before)


def test_a_training_step_has_gradients(device: torch.device) -> None:
    model = of.convert(vit().to(device), NOISY, sample=IMAGES.to(device), level="noise").train()
    with of.variation(model, seed=1), of.samples(range(len(IMAGES))):
        model(IMAGES.to(device)).square().mean().backward()
    gradients = [each.grad for each in model.parameters() if each.requires_grad]
    assert gradients
    assert all(each is not None and bool(torch.isfinite(each).all()) for each in gradients)


def test_half_precision_models_stay_what_they_are(device: torch.device) -> None:
    model = vit().to(device, torch.bfloat16)
    converted = of.convert(model, NOISY, sample=IMAGES.to(device, torch.bfloat16), level="noise")
    found = outputs(converted, IMAGES.bfloat16())
    assert found.dtype is torch.bfloat16
    assert bool(torch.isfinite(found).all())


def test_codes_are_the_same_on_all_devices(device: torch.device) -> None:
    values = torch.randn(8, 32, generator=torch.Generator().manual_seed(3))
    hardware, full = array(), values.abs().amax()
    found = quantize(values.to(device), hardware, full.to(device)).cpu()
    assert torch.equal(found, quantize(values, hardware, full))
