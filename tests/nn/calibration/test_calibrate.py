"""What is chosen for K and V brings the answers nearest to those of the original, and never makes them worse."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ohmformer as of
from ohmformer import BadInput, Conditioning, KVClip
from ohmformer.nn.calibration import recipes
from ohmformer.nn.calibration.calibrate import SingleInput, calibrate, protectable_operands
from ohmformer.nn.calibration.recipes import best_clips, candidate_clips, radices
from ohmformer.nn.calibration.runs import CHIP
from ohmformer.nn.convert.handle import crossbars
from tests.cases import quick_first
from tests.nn.models import Decoder, SelfAttention
from tests.study.small import model as small_model
from tests.study.small import task as small_task

INPUTS = small_task().inputs


def hardware(gamma: float, **changes: Any) -> of.Accelerator:
    found = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", gamma)
    for path, value in changes.items():
        found = of.replace(found, path.replace("__", "."), value)
    return found


def converted(gamma: float, **changes: Any) -> nn.Module:
    return of.convert(small_model().eval(), hardware(gamma, **changes), sample=INPUTS, level="noise")


def test_the_grid_starts_with_no_clip_and_leaves_out_what_leaves_nothing() -> None:
    array = hardware(1).attention.array
    grid = candidate_clips(array)
    assert grid[0] == KVClip(alpha=0.0, beta=1.0)
    assert len(set(grid)) == len(grid) > 4
    narrow = of.replace(array, "cell.g_min", "2.5 uS")
    assert {clip.beta for clip in candidate_clips(narrow)} == {1.0, 0.5}, "beta r <= 1 for r = 4 and beta = 0.25"
    assert candidate_clips(of.replace(array, "encoding", "offset")) == []


def test_slices_may_count_less_but_not_where_there_is_one() -> None:
    array = hardware(1).attention.array
    assert radices(array) == [None, 3, 2, 1]
    assert radices(of.replace(array, "bits_per_cell", 8)) == [None]
    assert radices(of.replace(array, "encoding", "offset")) == [None]


@pytest.mark.parametrize("remedy", ["clip", "auto"])
@pytest.mark.parametrize("gamma", quick_first([7.0, 0.0, 3.0], 1))
def test_the_choice_is_never_worse_than_nothing_and_is_what_runs_then(gamma: float, remedy: Any) -> None:
    model = converted(gamma)
    before = crossbars(model).state.seed, crossbars(model).state.chip
    found = calibrate(model, INPUTS, remedy=remedy)
    assert found.losses[found.recipe] <= found.losses["none"]
    assert all(spec.redundancy is None for spec in found.kv.values()), "redundancy takes arrays, so it is never chosen"
    assert (crossbars(model).state.seed, crossbars(model).state.chip) == before
    again = calibrate(model, INPUTS, remedy=remedy)
    assert again == found, "calibrating twice is calibrating once"
    truth = small_model().eval()(INPUTS).detach().log_softmax(-1)
    crossbars(model).state.chip, crossbars(model).state.seed = CHIP, 0  # a number that `set_chip` gives to no model
    with torch.no_grad(), of.samples(f"calibration {n}" for n in range(len(INPUTS))):
        said = model(INPUTS).log_softmax(-1)
    assert float(-(truth.exp() * said).sum(-1).mean()) == pytest.approx(found.losses[found.recipe], rel=1e-5)


def test_at_strong_noise_conditioning_is_chosen_and_helps_on_other_inputs() -> None:
    model = converted(7.0)
    other = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    truth = small_model().eval()(other).detach()

    def error() -> float:
        total = 0.0
        for chip in range(4):
            of.set_chip(model, chip)
            with torch.no_grad(), of.samples(range(64)):
                total += float((model(other) - truth).square().mean())
        return total

    unprotected = error()
    found = calibrate(model, INPUTS)
    assert found.recipe in ("hadamard", "balanced")
    assert set(found.kv) == {operand.name for operand in protectable_operands(crossbars(model))}
    assert error() < 0.5 * unprotected
    of.set_kv(model, None)
    assert error() == unprotected, "and it can be taken back"


@pytest.mark.slow
def test_the_choice_does_not_depend_on_the_batch() -> None:
    first, second = calibrate(converted(5.0), INPUTS, batch=3), calibrate(converted(5.0), INPUTS, batch=16)
    assert (first.recipe, first.kv) == (second.recipe, second.kv)
    assert first.losses == pytest.approx(second.losses, rel=1e-4)


@pytest.mark.parametrize("noise", [recipes.NOISE, recipes.FIRM])
@pytest.mark.slow
def test_clips_by_head_are_the_best_of_the_grid_for_each(noise: float) -> None:
    model = converted(6.0)
    operand = protectable_operands(crossbars(model))[0]
    calibrate(model, INPUTS, remedy="clip")
    crossbars(model).state.mode = "observe tokens"
    with torch.no_grad(), of.samples(range(16)):
        model(INPUTS)
    crossbars(model).state.mode = "run"
    operand.condition(None)
    chosen = best_clips(operand, noise)
    assert isinstance(chosen, tuple)
    assert len(chosen) == 2
    for clip in ("none", *candidate_clips(operand.array)):
        operand.clip = clip
        each = recipes.expected_error(operand, operand.watched, noise=noise)
        operand.clip = chosen
        assert bool((recipes.expected_error(operand, operand.watched, noise=noise) <= each + 1e-12).all())


@pytest.mark.slow
def test_without_logits_what_is_returned_is_compared() -> None:
    tokens = torch.randn(6, 7, 24, generator=torch.Generator().manual_seed(2))

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = SelfAttention()

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"features": self.inner(x), "pooled": self.inner(x).mean(dim=1)}

    model = of.convert(Features().eval(), hardware(6.0), sample=tokens, level="noise")
    found = calibrate(model, tokens)
    assert found.recipe != "none"
    assert 0 < found.losses[found.recipe] < found.losses["none"]


@pytest.mark.slow
def test_a_decoder_is_calibrated_with_ranges_and_means_that_stay() -> None:
    ids = torch.randint(0, 20, (8, 9), generator=torch.Generator().manual_seed(1))
    model = of.convert(Decoder().eval(), hardware(6.0), sample=ids, level="noise")
    found = calibrate(model, ids)
    assert found.recipe in ("hadamard", "balanced")
    for operand in protectable_operands(crossbars(model)):
        assert operand.conditioner is not None
        assert operand.conditioner.mean is not None
        assert operand.w_range is not None


def test_what_a_rule_has_a_clip_for_is_left_alone_and_sram_needs_nothing() -> None:
    ruled = of.convert(
        small_model().eval(), hardware(7.0), sample=INPUTS, level="noise", rules={"*.K": of.Rule(clip="none")}
    )
    assert all(name.endswith(".V") for name in calibrate(ruled, INPUTS).kv)
    sram = of.convert(small_model().eval(), of.load("xformer_tvlsi_2023"), sample=INPUTS, level="noise")
    found = calibrate(sram, INPUTS)
    assert (found.recipe, found.kv, found.clips) == ("none", {}, {})


def test_a_clip_that_is_set_later_takes_the_place_of_calibrated_ones() -> None:
    model = converted(7.0)
    calibrate(model, INPUTS, remedy="clip")
    of.set_clip(model, KVClip(alpha=2.0, beta=0.25))
    assert all(operand.clip == "model" for operand in protectable_operands(crossbars(model)))


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(BadInput, match="not on crossbars"):
        calibrate(small_model(), INPUTS)
    with pytest.raises(BadInput, match="at least one input"):
        calibrate(converted(1.0), INPUTS[:0])
    with pytest.raises(BadInput, match="remedy = 'magic'"):
        calibrate(converted(1.0), INPUTS, remedy="magic")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"K cannot be calibrated: an 'offset' array .* use encoding = 'differential'"):
        calibrate(converted(1.0, attention__array__encoding="offset"), INPUTS)


def test_a_choice_is_plain_json() -> None:
    found = calibrate(converted(7.0), INPUTS).canonical()
    assert found["recipe"] in found["losses"]
    assert all(Conditioning.model_validate(spec) for spec in found["kv"].values())


@pytest.mark.slow
def test_a_single_input_chooses_nothing() -> None:
    """One input picked whatever it happened to like; tokens of one text passed for independent inputs."""
    model = converted(2.0)
    with pytest.warns(SingleInput, match="single input.*give more inputs") as warned:
        found = calibrate(model, INPUTS[:1])
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert found.recipe == "none"
    assert not found.kv
    assert not found.clips
    assert set(found.losses) > {"none", "hadamard"}
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (2, 6))
    text = of.convert(Decoder().eval(), hardware(7.0), sample=ids)
    with pytest.warns(SingleInput):
        assert calibrate(text, ids[:1]).recipe == "none"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(model, INPUTS[:1], remedy="none")  # there is no choice
        calibrate(converted(0.0), INPUTS[:1], remedy="none")
        calibrate(model, INPUTS[:2])


@pytest.mark.slow
def test_a_generator_or_a_data_loader_gives_batches() -> None:
    whole = calibrate(converted(4.0), INPUTS[:12], remedy="clip", batch=4)
    labeled = DataLoader(TensorDataset(INPUTS[:12], torch.zeros(12)), batch_size=4)
    plain: DataLoader[torch.Tensor] = DataLoader(INPUTS[:12], batch_size=4)  # type: ignore[arg-type]
    assert calibrate(converted(4.0), (x for x, _ in labeled), remedy="clip").losses == whole.losses
    assert calibrate(converted(4.0), plain, remedy="clip").losses == whole.losses
    with pytest.raises(BadInput, match=r"^calibrate: inputs yields no batch"):
        calibrate(converted(4.0), iter(()))
    model = converted(4.0)
    for calibrating in (calibrate, of.calibrate_ranges):
        with pytest.raises(BadInput, match=r"such as \(x for x, _ in loader\)$"):
            calibrating(model, labeled)


@pytest.mark.slow
def test_a_list_of_mappings_is_a_list_of_batches() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    hardware = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
    x = torch.randn(4, 5, 8)
    model = of.convert(layer.eval(), hardware, sample={"src": x}, level="noise")
    whole = of.calibrate(model, {"src": x}, remedy="clip", batch=2)
    parts = of.calibrate(model, [{"src": x[:2]}, {"src": x[2:]}], remedy="clip")
    assert parts.losses == whole.losses
    of.calibrate(model, [{"src": x[:1, :3]}, {"src": x[1:]}], remedy="clip")
    of.calibrate_ranges(model, {"src": 2 * x})
    for inputs, said in (
        (None, "inputs is None"),
        ("x", "inputs is a str, 'x'"),
        ({"src": "x"}, r"inputs\['src'\] is a str"),
        ([{"src": x}, {}], r"inputs\[1\] holds no samples"),
    ):
        with pytest.raises(BadInput, match=f"^calibrate: {said}"):
            of.calibrate(model, inputs)
    with pytest.raises(BadInput, match=r"^calibrate_ranges: batches\[0\] is of type str"):
        of.calibrate_ranges(model, ["x"])
    with pytest.raises(BadInput, match=r"^convert: sample is a list of 2 mappings; give one of them"):
        of.convert(layer, hardware, sample=[{"src": x}, {"src": x}])


@pytest.mark.parametrize("inputs", [{"x": INPUTS}.values(), {1, 2}, frozenset({1})])
def test_views_and_sets_are_refused_by_what_they_are(inputs: Any) -> None:
    with pytest.raises(BadInput, match=r"inputs is an? (dict_values|set|frozenset); give a tensor"):
        calibrate(converted(2.0), inputs)
