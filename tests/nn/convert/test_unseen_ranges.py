"""Calibration that met nothing says so, as do inputs far beyond it; experts without a token have converter ranges."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.convert.unseen_ranges import NothingSeen
from tests.nn.models import SelfAttention

HARDWARE = of.load("clipformer_tcad_2024")
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))


def converters(hardware: of.Accelerator, role: str) -> of.Accelerator:
    hardware = of.replace(hardware, f"{role}.array.adc.bits", 6)
    return of.replace(hardware, f"{role}.array.adc.range", {"kind": "calibrated"})


class TwoInputs(nn.Module):
    """Words, and pictures of which a sample may have none."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.pictures, self.head = nn.Linear(24, 8), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, words: Tensor, pictures: Tensor) -> Tensor:
        return self.head(self.words(words) + self.pictures(pictures))


def test_a_sample_of_zeros_is_told() -> None:
    with pytest.warns(NothingSeen, match=r"saw only zeros at q \(inputs\), k \(inputs\), v \(inputs\)"):
        of.convert(SelfAttention().eval(), HARDWARE, sample=torch.zeros_like(TOKENS))


def test_the_one_operand_without_inputs_is_named() -> None:
    with pytest.warns(NothingSeen, match=r"at pictures \(inputs\), so"):
        of.convert(TwoInputs(), HARDWARE, sample=(TOKENS[:, 0], torch.zeros(3, 5)))


def test_converters_that_saw_no_current_are_named() -> None:
    dynamic = of.replace(converters(HARDWARE, "projection"), "projection.array.inputs.range", "dynamic")
    model = TwoInputs()
    with pytest.warns(NothingSeen, match=r"at pictures \(converters\), so"):
        of.convert(model, dynamic, sample=(TOKENS[:, 0], torch.zeros(3, 5)))
    nn.init.zeros_(model.words.weight)
    with pytest.warns(NothingSeen, match=r"at words \(converters\), so"):
        of.convert(model, dynamic, sample=(TOKENS[:, 0], torch.ones(3, 5)))


@pytest.mark.parametrize("hardware", [HARDWARE, converters(HARDWARE, "attention")])
def test_real_inputs_say_nothing(hardware: of.Accelerator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted = of.convert(SelfAttention(is_causal=True).eval(), hardware, sample=TOKENS)
        of.set_clip(converted, of.KVClip())


def test_set_kv_and_calibrate_tell_it_again() -> None:
    with pytest.warns(NothingSeen):
        converted = of.convert(SelfAttention().eval(), HARDWARE, sample=torch.zeros_like(TOKENS))
    with pytest.warns(NothingSeen):
        of.calibrate(converted, TOKENS, remedy="clip")
    with pytest.warns(NothingSeen):
        of.set_kv(converted, of.Conditioning(mean=True))


class Experts(nn.Module):
    """A bank of matrices, of which each token uses one."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.randn(3, 24, 8, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor, expert: Any = None) -> Tensor:
        chosen = (x[:, 0] > 0).long() if expert is None else expert
        found = x.new_zeros(len(x), 8)
        for e in chosen.unique().tolist():
            found[chosen == e] = x[chosen == e] @ self.bank[e]
        return found


def test_an_expert_that_no_token_used_has_the_converter_range_of_the_others() -> None:
    converted = of.convert(Experts(), converters(HARDWARE, "projection"), sample=TOKENS[:, 0])
    ranges = {operand.name: operand.adc_range for operand in crossbars(converted).operands}
    assert set(ranges) == {"bank[0]", "bank[1]", "bank[2]"}
    assert all(span is not None for span in ranges.values())
    with torch.no_grad(), of.samples(range(3)):
        assert bool(converted(TOKENS[:, 0], torch.full((3,), 2)).isfinite().all())


def test_a_sample_that_uses_few_experts_is_told() -> None:
    with pytest.warns(NothingSeen, match=r"calibration used 1 of the 3 matrices of bank, so the others have the range"):
        converted = of.convert(Experts(), HARDWARE, sample=TOKENS[:1, 0])
    of.calibrate_ranges(converted, TOKENS[:, 0])
    guessed = {operand.name: operand.range_guessed for operand in crossbars(converted).operands}
    assert guessed == {"bank[0]": False, "bank[1]": False, "bank[2]": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error", NothingSeen)
        of.convert(Experts(), HARDWARE, sample=TOKENS[:, 0])


@pytest.mark.parametrize("size", [1e-30, 1e-40, 1e-12])
def test_inputs_that_vanish_beside_the_weights_are_told(size: float) -> None:
    with pytest.warns(
        NothingSeen, match=r"nothing above .* at q \(inputs\), k \(inputs\), v \(inputs\), which is negligible"
    ):
        of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS * size)


def test_one_matrix_of_huge_weights_makes_no_inputs_negligible() -> None:
    model = SelfAttention().eval()
    model.register_parameter("huge", nn.Parameter(torch.full((2, 24), 1e8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of.convert(model, HARDWARE, sample=TOKENS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_sample_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(of.BadInput, match="NaN or infinity; check the sample and the model"):
        of.convert(SelfAttention().eval(), HARDWARE, sample=torch.where(TOKENS > 1, bad, TOKENS))


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
