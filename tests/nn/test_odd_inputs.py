"""Empty batches, inputs of another type, axes of different length, and hardware without noise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import ohmformer as of
from ohmformer import BadInput
from ohmformer.nn.calibration.comparison import best_recipe
from tests.nn.models import Decoder, Encoder, SelfAttention, vit

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))
WORDS = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (SelfAttention, TOKENS),
        (lambda: SelfAttention(is_causal=True), TOKENS),
        (Encoder, TOKENS),
        (vit, torch.randn(4, 1, 12, 12)),
        (Decoder, WORDS),
        (lambda: nn.Conv2d(4, 6, 3, padding=1), torch.randn(2, 4, 8, 8)),
        (lambda: nn.Conv1d(4, 6, 3, groups=2), torch.randn(2, 4, 8)),
    ],
)
def test_an_empty_batch_gives_what_the_digital_model_gives(make: Callable[[], nn.Module], x: Tensor) -> None:
    model = make().eval()
    converted = of.convert(model, HARDWARE, sample=x)
    with torch.no_grad():
        found, expected = converted(x[:0]), model(x[:0])
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype


def test_no_tokens_give_none() -> None:
    converted = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS)
    assert converted(TOKENS[:, :0]).shape == (3, 0, 24)


@pytest.mark.parametrize("inputs", [TOKENS.double(), TOKENS.half(), TOKENS.long(), TOKENS[..., :20], TOKENS[0]])
def test_calibration_on_other_inputs_is_refused_and_changes_nothing(inputs: Tensor) -> None:
    converted = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS)
    with torch.no_grad(), of.samples(range(3)):
        before = converted(TOKENS)
        with pytest.raises(BadInput, match=r"^the model fails on the calibration inputs .*give inputs of the type"):
            of.calibrate(converted, inputs)
        assert torch.equal(converted(TOKENS), before)


def test_rows_of_an_array_are_not_batches() -> None:
    converted = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS)
    assert of.calibrate(converted, DataLoader(TensorDataset(TOKENS), batch_size=3)) == of.calibrate(converted, TOKENS)


def test_calibration_takes_arrays() -> None:
    converted = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS)
    assert of.calibrate(converted, TOKENS.numpy()) == of.calibrate(converted, TOKENS)


class Axial(nn.Module):
    """One attention along the rows and along the columns of images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SelfAttention()

    def forward(self, x: Tensor) -> Tensor:
        rows = self.inner(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        turned = rows.transpose(1, 2)
        return rows + self.inner(turned.flatten(0, 1)).unflatten(0, turned.shape[:2]).transpose(1, 2)


def test_one_attention_along_axes_of_different_length_is_refused_with_a_rule_that_works() -> None:
    x = torch.randn(2, 5, 7, 24, generator=torch.Generator().manual_seed(1))
    converted = of.convert(Axial().eval(), HARDWARE, sample=x)
    for protect in (lambda m: of.calibrate(m, x), lambda m: of.set_kv(m, of.Conditioning(mean=True, basis="balanced"))):
        with pytest.raises(
            BadInput,
            match=r"^inner.K holds 20 and 28 matrices .*rules={'inner.K': Rule\(clip='none'\), "
            r"'inner.V': Rule\(clip='none'\)}",
        ):
            protect(converted)
    rules = {"inner.K": of.Rule(clip="none"), "inner.V": of.Rule(clip="none")}
    of.calibrate(of.convert(Axial().eval(), HARDWARE, sample=x, rules=rules), x)


def test_without_noise_nothing_is_done() -> None:
    silent = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 0.0)
    converted = of.convert(SelfAttention().eval(), silent, sample=TOKENS)
    found = of.calibrate(converted, TOKENS)
    assert (found.recipe, found.clips, found.kv) == ("none", {}, {})


def test_a_gain_that_is_certain_but_next_to_nothing_is_none() -> None:
    none, floor = torch.full((50,), 3.1), torch.full((50,), 3.0)
    assert best_recipe({"none": none, "clip": none - 1e-6}, floor) == "none"
    assert best_recipe({"none": none, "clip": none - 1e-3}, floor) == "clip"
