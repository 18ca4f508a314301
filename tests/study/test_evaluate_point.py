"""One point: settings in, plain numbers out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.study.evaluate_point import evaluate_point
from ohmformer.study.loaded import identify
from ohmformer.study.read_study import make_study
from ohmformer.study.results.spec import PointResult
from ohmformer.study.spec import Settings
from tests.study.small import GAMMA, document


def settings(*sets: str) -> Settings:
    (point,) = make_study(document(), sets).points
    return point.settings


def test_a_result_is_plain_and_consistent() -> None:
    result = evaluate_point(settings(f"{GAMMA}=6", "trials.chips=3"))
    assert PointResult.model_validate(json.loads(json.dumps(result.model_dump(by_alias=True)))) == result
    accuracy = result.accuracy
    assert accuracy.metric == "top1"
    assert accuracy.level == "array"
    assert accuracy.software == 1.0
    assert accuracy.samples == 16
    assert len(accuracy.chips) == 3
    assert accuracy.mean == pytest.approx(np.mean(accuracy.chips), abs=1e-12)
    assert sum(accuracy.score_sums) == round(sum(accuracy.chips) * 16)
    low, high = accuracy.ci95
    assert 0 <= low <= accuracy.mean <= high <= 1
    assert result.write_noise.key.model_dump() == {"kind": "sqrt_range", "gamma": 6.0, "sigma": 0.2}
    assert result.write_noise.projection.gamma == 1.0


def test_a_result_repeats_and_depends_on_the_seed() -> None:
    noisy = (f"{GAMMA}=6", "trials.chips=3")
    assert evaluate_point(settings(*noisy)) == evaluate_point(settings(*noisy))
    assert evaluate_point(settings(*noisy)) != evaluate_point(settings(*noisy, "seed=1"))


def test_calibrated_clips_equal_the_same_clips_given_by_rules() -> None:
    noisy = (f"{GAMMA}=20", "trials.chips=2")  # so strong that a clip is chosen on a few samples
    accuracy = evaluate_point(settings(*noisy, "mitigation.clip=calibrated")).accuracy
    chosen = accuracy.chosen
    assert chosen is not None
    assert chosen.recipe == "clip"
    rules = {name: {"clip": clip} for name, clip in chosen.clips.items()}
    (point,) = make_study(document(rules=rules), noisy).points
    assert evaluate_point(point.settings).accuracy == accuracy.model_copy(update={"chosen": None})


def test_the_share_of_digital_tokens_stands_beside_the_accuracy() -> None:
    """One of the five tokens of the model, its class token."""
    (point,) = make_study(document(mitigation={"kv": {"first_tokens": 1}}), ["trials.chips=2"]).points
    result = evaluate_point(point.settings)
    assert result.accuracy.digital_token_share == pytest.approx(1 / 5)
    assert evaluate_point(settings("trials.chips=2")).accuracy.digital_token_share is None
    (refused,) = make_study(document(mitigation={"kv": {"last_tokens": 1}}), ["trials.chips=2"]).points
    with pytest.raises(BadInput, match=r"mitigation.kv.last_tokens = 1: .* is not causal"):
        evaluate_point(refused.settings)


@pytest.mark.slow
def test_conditioning_is_chosen_or_given() -> None:
    noisy = (f"{GAMMA}=7", "trials.chips=4")
    plain = evaluate_point(settings(*noisy)).accuracy
    auto = evaluate_point(settings(*noisy, "mitigation.kv=auto")).accuracy
    given = evaluate_point(settings(*noisy, 'mitigation.kv={ mean = true, basis = "hadamard", scale = "token" }'))
    assert auto.chosen.recipe in ("hadamard", "balanced")
    assert auto.mean > plain.mean < given.accuracy.mean
    assert given.accuracy.chosen is None


@pytest.mark.slow
def test_redundancy_is_given_with_the_array_or_the_conditioning() -> None:
    noisy = (f"{GAMMA}=7", "trials.chips=4")
    plain, given, own = (
        evaluate_point(settings(*noisy, *more)).accuracy.mean
        for more in ((), ("mitigation.kv={ redundancy = 16 }",), ("hardware.attention.array.redundancy=16",))
    )
    assert plain < given == own


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("mitigation.kv=magic",), "mitigation.kv = 'magic': is not a conditioning; write 'none', 'auto' or"),
        (('mitigation.kv={ basis = "fourier" }',), "mitigation.kv.basis = 'fourier'"),
        (("mitigation.kv={ range = 0.0 }",), "mitigation.kv.range = 0.0"),
        (("mitigation.kv={ redundancy = 0 }",), "mitigation.kv.redundancy = 0: must be >= 1; raise it"),
        (("mitigation.kv={ redundancy = 1.5 }",), "mitigation.kv.redundancy = 1.5: must be a whole number"),
        (("hardware.attention.array.redundancy=0",), "hardware.attention.array.redundancy = 0: must be >= 1; raise it"),
        (("mitigation.kv=auto", "mitigation.clip=calibrated"), "kv = 'auto' chooses clips too; write clip = 'none'"),
        (("mitigation.kv={ mean = true }", "mitigation.clip=calibrated"), "needs K and V without conditioning"),
    ],
)
def test_what_is_no_conditioning_gets_one_line(sets: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput) as raised:
        settings(*sets)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_point_without_an_interval_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^small: samples = 1, trials\.chips = 2: too few to show how much fidelity"):
        evaluate_point(settings("task.metric=fidelity", "task.limit=1"))


def test_threads_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        evaluate_point(settings("trials.chips=1"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_clip_that_does_not_go_with_the_arrays_is_refused_before_anything_runs() -> None:
    offset = settings("hardware.attention.array.encoding=offset", "mitigation.clip={ alpha = 2.0, beta = 0.25 }")
    with pytest.raises(BadInput, match="differential"):
        identify(offset)


def test_the_refusal_of_a_clip_names_its_path() -> None:
    offset = settings("hardware.attention.array.encoding=offset", "mitigation.clip={ alpha = 2.0, beta = 0.25 }")
    with pytest.raises(BadInput, match=r"^mitigation\.clip: "):
        identify(offset)


def test_a_model_is_what_it_does_and_not_only_its_weights() -> None:
    same = identify(settings()).model
    other = identify(settings("model.source=python:tests.study.small:model_with_one_head")).model
    assert other != same


def test_static_weights_are_conditioned_in_the_whole_model() -> None:
    noisy = ("hardware.projection.array.cell.write_noise.sigma=0.3", "trials.chips=3")
    plain, rotated, tables = (
        evaluate_point(settings(*noisy, *sets)).accuracy
        for sets in (
            (),
            ("mitigation.weights.rotate=true", "mitigation.weights.percentile=99.5"),
            ("mitigation.weights={ rotate = true, percentile = 99.5 }",),
        )
    )
    assert rotated == tables
    assert rotated.chips != plain.chips


def test_verified_writes_are_part_of_the_answer() -> None:
    noisy = ("hardware.projection.array.cell.write_noise.sigma=0.3", "trials.chips=3")
    write_verify = "hardware.projection.array.write_verify={ writes = [1, 2, 8, 30], tolerance = 0.03 }"
    plain, verified = evaluate_point(settings(*noisy)), evaluate_point(settings(*noisy, write_verify))
    assert verified.accuracy.mean > plain.accuracy.mean
    assert verified.write_noise.projection.model_dump()["write_verify"] == {"writes": [1, 2, 8, 30], "tolerance": 0.03}
    assert not verified.write_noise.key.verified


def for_colors() -> torch.nn.Module:
    return torch.nn.Conv2d(3, 4, 3)


def not_a_number() -> torch.nn.Module:
    class Divides(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) / 0

    return Divides()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("for_colors", r"Conv2d fails on calibration samples \(RuntimeError: .*choose a model and a task that fit"),
        ("not_a_number", "Divides: its outputs are NaN or infinite"),
    ],
)
def test_a_model_that_does_not_fit_its_data_is_one_line(source: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        identify(settings(f"model.source=python:{__name__}:{source}"))
    assert "\n" not in str(caught.value)


SIGMA = "hardware.projection.array.cell.write_noise.sigma"


@pytest.mark.slow
def test_mitigation_of_weights_is_chosen_or_given() -> None:
    noisy = (f"{SIGMA}=0.6", "trials.chips=4", "simulation.level=noise")
    plain = evaluate_point(settings(*noisy)).accuracy
    auto = evaluate_point(settings(*noisy, "mitigation.weights=auto")).accuracy
    given = evaluate_point(
        settings(*noisy, 'mitigation.weights={ residual = {}, radix = 2, scale = "column" }')
    ).accuracy
    assert auto.chosen is not None
    assert auto.chosen.weights is not None
    assert (auto.chosen.words, auto.chosen.kv) == ("weights: feedback", {})
    assert auto.mean > plain.mean < given.mean
    assert given.chosen is None
    both = evaluate_point(settings(*noisy, f"{GAMMA}=7", "mitigation.weights=auto", "mitigation.kv=auto")).accuracy
    assert both.chosen is not None
    assert both.chosen.words == f"{both.chosen.recipe}, weights: {both.chosen.weights.recipe}"
    assert json.loads(json.dumps(both.model_dump(by_alias=True)))["chosen"]["weights"]["recipe"] == "feedback"


def test_a_choice_without_weights_is_written_as_before() -> None:
    found = evaluate_point(settings(f"{GAMMA}=7", "mitigation.kv=auto")).accuracy
    assert "weights" not in found.model_dump(by_alias=True)["chosen"]
