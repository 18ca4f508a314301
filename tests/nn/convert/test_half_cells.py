"""Models whose cells are kept in half precision: half the memory, nearly the same results, and refusals in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.array.folded import Folded
from ohmformer.nn.operands.weight import WeightOperand
from tests.nn.models import vit

PER_CELL, CONVERTED = of.load("clipformer_tcad_2024"), of.load("generic_amplitude")
IMAGES = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def output(model: Any, sample: Tensor = IMAGES) -> Tensor:
    with torch.no_grad(), of.samples(range(len(sample))):
        found: Tensor = model(sample)
    return found


def cells(model: Any) -> list[Folded]:
    operands = [op for op in model.ohmformer_crossbars.operands if isinstance(op, WeightOperand)]
    return [op.cells.cells for op in operands if isinstance(op.cells.cells, Folded)]


def halved(**options: Any) -> Any:
    return of.convert(vit(), PER_CELL, sample=IMAGES, level="noise", half_cells=True, **options)


@pytest.mark.parametrize("keep", [True, False])
def test_results_differ_by_far_less_than_noise_changes_them(keep: bool) -> None:
    half, full = halved(keep_original=keep), of.convert(vit(), PER_CELL, sample=IMAGES, level="noise")
    exact = output(vit())
    noise = float((output(full) - exact).norm())
    # Inputs of the next layer are rounded to codes, and some fall on the other side.
    assert 0 < float((output(half) - output(full)).norm()) < 0.2 * noise
    assert all(held.values.dtype is torch.float16 for held in cells(half))
    assert cells(half)
    assert all(held.values.dtype is torch.float32 for held in cells(full))


def test_without_the_rounding_of_inputs_results_are_closer() -> None:
    half, full = halved(), of.convert(vit(), PER_CELL, sample=IMAGES, level="noise")
    with of.without_quantizers(half), of.without_quantizers(full):
        noise = float((output(full) - output(vit())).norm())
        assert 0 < float((output(half) - output(full)).norm()) < 0.01 * noise


def test_a_model_of_half_precision_takes_its_memory_once_more() -> None:
    model = vit().to(torch.bfloat16)
    half = of.convert(model, PER_CELL, sample=IMAGES.bfloat16(), level="noise", half_cells=True)
    output(half, IMAGES.bfloat16())
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    held = sum(each.values.nbytes for each in cells(half) if each.values.dim() == 2)
    assert held >= sum(weight.nbytes for weight in linear) > 0
    assert held <= sum(parameter.nbytes for parameter in model.parameters())


def test_a_sample_has_the_same_result_in_any_batch() -> None:
    half = halved()
    assert torch.allclose(output(half)[:1], output(half, IMAGES[:1]), atol=1e-5)


def test_gradients_pass() -> None:
    half, x = halved(), IMAGES.clone().requires_grad_()
    with of.samples(range(2)):
        half(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0


def test_files_and_configurations_say_so(tmp_path: Path) -> None:
    half = halved()
    of.save(half, tmp_path / "model.safetensors")
    restored = of.restore(vit(), tmp_path / "model.safetensors")
    assert torch.equal(output(restored), output(half))
    config = of.ConvertConfig(hardware=PER_CELL, level="noise", half_cells=True)
    config = of.ConvertConfig.read(config.canonical())
    assert torch.equal(output(of.convert(vit(), config, sample=IMAGES)), output(half))


def test_single_slices_have_no_half_precision() -> None:
    with pytest.raises(of.BadInput, match=r"half_cells: .* level 'array' simulates its single slices") as error:
        of.convert(vit(), CONVERTED, sample=IMAGES, level="array", half_cells=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [0, "no", torch.float16])
def test_half_cells_is_true_or_false(value: Any) -> None:
    with pytest.raises(of.BadInput, match="half_cells"):
        of.convert(vit(), PER_CELL, sample=IMAGES, half_cells=value)
