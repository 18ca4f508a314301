"""What is chosen for static weights brings the answers nearest to those of the original, and never makes them worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ohmformer as of
from ohmformer import BadInput, Rule, WeightMitigation
from ohmformer.array.residual.spec import Residual
from ohmformer.nn.calibration.calibrate import SingleInput, calibrate
from ohmformer.nn.calibration.calibrate_weights import weight_recipes
from ohmformer.nn.calibration.comparison import best_on_chips
from ohmformer.nn.calibration.runs import CHIP, CHIPS
from ohmformer.nn.calibration.weight_error import Sampled, expected_error
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.convert.weight_mitigation import observing
from tests.cases import quick_first
from tests.nn.convert.test_unseen_ranges import Experts
from tests.nn.models import Decoder, Encoder, vit
from tests.nn.operands.test_rotation import IMAGES, TOKENS, VECTORS, outputs, statics
from tests.study.small import model as small_model
from tests.study.small import task as small_task

INPUTS = small_task().inputs
QUIET_KV = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 0.0)


def hardware(sigma: float, kv: float = 0.0, **changes: Any) -> of.Accelerator:
    found = of.replace(QUIET_KV, "attention.array.cell.write_noise.gamma", kv)
    found = of.replace(found, "projection.array.cell.write_noise.sigma", sigma)
    for path, value in changes.items():
        found = of.replace(found, path.replace("__", "."), value)
    return found


def converted(sigma: float, kv: float = 0.0, **changes: Any) -> nn.Module:
    return of.convert(small_model().eval(), hardware(sigma, kv, **changes), sample=INPUTS, level="noise")


def loss_on_calibration_chips(model: nn.Module, mode: Any = "run weights") -> float:
    """The mean cross-entropy that `calibrate` reports, computed from the outputs of the model alone."""
    truth, state, found = small_model().eval()(INPUTS).detach().log_softmax(-1), crossbars(model).state, []
    state.seed = 0
    for chip in range(CHIP, CHIP - CHIPS, -1):
        state.chip = chip
        names = of.samples(f"calibration {n}" for n in range(len(INPUTS)))
        with torch.no_grad(), names, state.set_mode(mode):
            found.append(float(-(truth.exp() * model(INPUTS).log_softmax(-1)).sum(-1).mean()))
    return sum(found) / len(found)


@pytest.mark.parametrize("sigma", quick_first([0.3, 0.05, 1.0], 1))
def test_the_choice_is_never_worse_than_nothing_and_is_what_runs_then(sigma: float) -> None:
    model = converted(sigma)
    before = crossbars(model).state.seed, crossbars(model).state.chip
    found = calibrate(model, INPUTS, remedy=None, weights="auto")
    assert (crossbars(model).state.seed, crossbars(model).state.chip) == before
    assert found.weights is not None
    losses = found.weights.losses
    assert losses[found.weights.recipe] <= losses["none"]
    assert all(spec.redundancy is None for spec in found.weights.weights.values())
    again = calibrate(model, INPUTS, remedy=None, weights="auto")
    assert again == found, "calibrating twice is calibrating once"
    assert loss_on_calibration_chips(model) == pytest.approx(losses[found.weights.recipe], rel=1e-4)


@pytest.mark.slow
def test_at_strong_noise_something_is_done_and_helps_on_other_inputs_and_chips() -> None:
    model, other = converted(0.7), torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    truth = small_model().eval()(other).detach()

    def error() -> float:
        total = 0.0
        for chip in range(4):
            of.set_chip(model, chip)
            total += float((outputs(model, other) - truth).square().mean())
        return total

    before = error()
    found = of.calibrate(model, INPUTS, remedy=None, weights="auto")
    assert found.weights is not None
    assert found.weights.recipe == "feedback"
    assert found.weights.losses["feedback"] < found.weights.losses["residual"]
    assert set(found.weights.weights) == set(statics(model))
    assert error() < before / 5
    assert "residual with feedback" in str(model)


def test_without_noise_nothing_is_done() -> None:
    model = converted(0.0)
    before = outputs(model, INPUTS)
    found = calibrate(model, INPUTS, weights="auto")
    assert found.weights is not None
    assert (found.recipe, found.weights.recipe, found.weights.weights) == ("none", "none", {})
    assert torch.equal(outputs(model, INPUTS), before)


@pytest.mark.slow
def test_weights_come_first_and_then_k_and_v() -> None:
    model = converted(0.5, kv=5.0)
    found = calibrate(model, INPUTS, weights="auto")
    assert found.weights is not None
    assert found.weights.recipe == "feedback"
    assert found.recipe != "none"
    assert loss_on_calibration_chips(model, "run") < found.losses["none"]
    alone = converted(0.5, kv=5.0)
    calibrate(alone, INPUTS, remedy=None, weights="auto")
    assert {n: o.mitigation for n, o in statics(alone).items()} == {n: o.mitigation for n, o in statics(model).items()}


@pytest.mark.slow
def test_k_and_v_stay_as_they_were_set() -> None:
    spec = of.Conditioning(mean=True, basis="hadamard", scale="token")
    model = converted(0.5, kv=5.0)
    of.set_kv(model, spec)
    calibrate(model, INPUTS, remedy=None, weights="auto")
    kept = [op.conditioner.spec for op in crossbars(model).operands if hasattr(op, "conditioner")]
    assert kept
    assert all(each == spec for each in kept)


def test_without_the_argument_weights_are_left_alone() -> None:
    spec = WeightMitigation(radix=1, scaling=0.5)
    model = of.convert(small_model().eval(), hardware(0.5, 3.0), sample=INPUTS, level="noise", weights=spec)
    assert calibrate(model, INPUTS).weights is None
    assert all(operand.mitigation == spec for operand in statics(model).values())


@pytest.mark.parametrize(
    ("make", "x", "level"), [(vit, IMAGES, "cell"), (Decoder, TOKENS, "array"), (Encoder, VECTORS, "noise")]
)
@pytest.mark.slow
def test_models_of_every_kind_at_every_level(make: Any, x: Any, level: Any, tmp_path: Path) -> None:
    original = make().eval()
    model = of.convert(original, hardware(0.8), sample=x, level=level)
    found = calibrate(model, x, remedy=None, weights=["residual", "codes"])
    assert found.weights is not None
    assert set(found.weights.losses) == {"none", "residual", "codes"}
    with of.samples(range(len(x))):
        after = outputs(model, x)
    of.save(model, tmp_path / "model.safetensors")
    restored = of.restore(make().eval(), tmp_path / "model.safetensors")
    assert torch.equal(outputs(restored, x), after)
    other = of.restore(make().eval(), tmp_path / "model.safetensors", hardware=hardware(0.0))
    assert all(operand.mitigation == WeightMitigation() for operand in statics(other).values())


def test_rules_keep_what_they_say() -> None:
    own = WeightMitigation(radix=1)
    rules = {"head": Rule(weights=own), "blocks.0.mlp.0": Rule(rotate=True), "blocks.0.mlp.2": None}
    model = of.convert(vit(), hardware(0.8), sample=IMAGES, level="noise", rules=rules)
    found = calibrate(model, IMAGES, remedy=None, weights="residual")
    assert found.weights is not None
    assert found.weights.recipe == "residual"
    assert "head" not in found.weights.weights
    assert "blocks.0.mlp.2" not in found.weights.weights
    assert statics(model)["head"].mitigation == own
    assert statics(model)["blocks.0.mlp.0"].rotated


@pytest.mark.slow
def test_a_single_input_is_no_evidence() -> None:
    model = converted(0.7)
    with pytest.warns(SingleInput, match="weights stay unprotected"):
        found = calibrate(model, INPUTS[:1], remedy=None, weights="auto")
    assert found.weights is not None
    assert found.weights.recipe == "none"


def test_a_failure_leaves_everything_as_it_was() -> None:
    model = converted(0.5, kv=5.0)
    of.set_weights(model, WeightMitigation(radix=1, scaling=0.5))
    before = outputs(model, INPUTS)
    with pytest.raises(BadInput, match="calibration inputs"):
        calibrate(model, torch.randn(4, 2, 8, 8), weights="auto")
    assert torch.equal(outputs(model, INPUTS), before)


def test_arrays_with_residual_writing_of_their_own_keep_its_read_back() -> None:
    model = converted(0.5, projection__array__residual={"bits": 5})
    found = calibrate(model, INPUTS, remedy=None, weights="residual")
    assert found.weights is not None
    assert all(operand.array.residual == Residual(bits=5) for operand in statics(model).values())


@pytest.mark.slow
def test_verified_weights_are_never_written_residually() -> None:
    model = converted(0.5, projection__array__write_verify={"tolerance": 0.01, "writes": 3})
    found = calibrate(model, INPUTS, remedy=None, weights="auto")
    assert found.weights is not None
    assert "residual" not in found.weights.losses


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("automatic", "known: auto, codes"),
        (3, "weights is"),
        (["residual", 3], "weights is a"),
        (["residual", "residual"], "twice"),
        ({"residual": {}}, "weights"),
    ],
)
def test_unknown_recipes_are_refused(weights: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words) as error:
        calibrate(converted(0.5), INPUTS, weights=weights)
    assert "\n" not in str(error.value)
    assert weight_recipes(["residual"]) == ["none", "residual"]


def test_arrays_without_closed_form_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="cannot be calibrated: an 'offset' array"):
        calibrate(converted(0.5, projection__array__encoding="offset"), INPUTS, weights="auto", remedy=None)


@pytest.mark.slow
def test_weights_that_drift_are_chosen_for_what_was_just_written() -> None:
    drift = {"kind": "power_law", "t0": 1.0, "nu": 0.01}
    model = converted(0.5, projection__array__cell__drift=drift, projection__array__age=100.0)
    found = calibrate(model, INPUTS, remedy=None, weights="auto")
    assert found.weights is not None
    assert found.weights.recipe in ("codes", "residual", "feedback")
    assert not any(spec.unbiased for spec in found.weights.weights.values())


SPECS = [
    WeightMitigation(),
    WeightMitigation(scaling=0.5, rotate=True),
    WeightMitigation(scale="column", radix=1, range=0.7, unbiased=True),
    WeightMitigation(scaling=0.5, scale="column", radix=2, residual=Residual(bits=5)),
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.slow
def test_the_expected_error_is_that_of_many_chips(spec: WeightMitigation) -> None:
    """The mean over 300 chips of a layer's square error; its standard error is below 1 % of it, and 5 % are allowed."""
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(48, 32, bias=False)).eval(), torch.randn(64, 48)
    model = of.convert(layer, hardware(0.4), sample=x, level="noise", weights=spec)
    operand, truth, total = statics(model)["0"], layer(x).detach(), 0.0
    for chip in range(300):
        of.set_chip(model, chip)
        total += float((outputs(model, x) - truth).square().mean()) / 300
    with observing([operand]), torch.no_grad(), crossbars(model).state.set_mode("observe vectors"):
        model(x)
        assert operand.observed is not None
        part = Sampled.of(operand, operand.observed)
        assert expected_error(operand, [part]) == pytest.approx(total, rel=0.05)


def test_a_gain_on_one_chip_that_others_do_not_show_is_chance() -> None:
    inputs = torch.arange(50)
    none = torch.full((3, 50), 2.0) + 0.01 * torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    lucky, better = none.clone(), none - 0.2
    lucky[0] -= 0.3
    assert best_on_chips({"none": none, "lucky": lucky}, torch.ones(50), inputs) == "none"
    assert best_on_chips({"none": none, "better": better}, torch.ones(50), inputs) == "better"
    assert best_on_chips({"none": none, "worse": none + 0.1}, torch.ones(50), inputs) == "none"


def test_experts_of_a_bank_have_one_mitigation_and_factors_in_common() -> None:
    """Also an expert that no calibration input uses."""
    model, x = Experts().eval(), torch.randn(40, 24, generator=torch.Generator().manual_seed(2))
    spec = WeightMitigation(scaling=0.5, rotate=True)
    quiet = of.convert(model, hardware(0.0), sample=x, weights=spec)
    members = [operand for name, operand in statics(quiet).items() if name.startswith("bank")]
    first, *others = (operand.scaling for operand in members)
    assert first is not None
    assert all(torch.equal(first, each) for each in others if each is not None)
    assert len(others) == 2
    with of.without_quantizers(quiet):
        torch.testing.assert_close(outputs(quiet, x), outputs(model, x), rtol=1e-4, atol=1e-4)
    noisy = of.convert(model, hardware(0.8), sample=x, level="noise")
    found = calibrate(noisy, x, remedy=None, weights="residual")
    assert found.weights is not None
    chosen = [found.weights.weights[operand.name] for operand in members]
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.slow
def test_layers_with_a_mitigation_of_their_own_keep_its_factors_and_corrections(tmp_path: Path) -> None:
    own = WeightMitigation(scaling=0.5, scale="column", residual=Residual(feedback=True))
    model = of.convert(
        small_model().eval(), hardware(0.7), sample=INPUTS, level="noise", rules={"head": Rule(weights=own)}
    )
    before = statics(model)["head"]
    scaling, feedback = before.scaling, before.feedback
    assert scaling is not None
    calibrate(model, INPUTS, remedy=None, weights="feedback")
    after = statics(model)["head"]
    assert after.mitigation == own
    assert after.scaling is scaling
    assert after.feedback is feedback
    of.save(model, tmp_path / "model.safetensors")
    restored = of.restore(small_model().eval(), tmp_path / "model.safetensors")
    assert torch.equal(outputs(restored, INPUTS), outputs(model, INPUTS))


@pytest.mark.slow
def test_the_order_of_recipes_decides_nothing() -> None:
    names = ["feedback", "codes"]
    found = [calibrate(converted(0.7), INPUTS, remedy=None, weights=order).weights for order in (names, names[::-1])]
    assert found[0] == found[1]


@pytest.mark.slow
def test_an_interrupted_calibration_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = converted(0.7, kv=0.2)
    before = outputs(model, INPUTS)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ohmformer.nn.calibration.calibrate_weights.best_on_chips", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, INPUTS, weights="feedback")
    assert torch.equal(outputs(model, INPUTS), before)
    assert all(operand.observed is None for operand in statics(model).values())
