"""One point: settings in, plain numbers out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.nn.calibrate import candidates
from ohmformer.study.evaluate import evaluate_point, identify
from ohmformer.study.read import make_study
from ohmformer.study.spec import Settings
from tests.study.small import GAMMA, document


def settings(*sets: str) -> Settings:
    (point,) = make_study(document(), sets).points
    return point.settings


def test_a_result_is_plain_and_consistent() -> None:
    result = evaluate_point(settings(f"{GAMMA}=6", "trials.chips=3"))
    assert json.loads(json.dumps(result)) == result
    accuracy = result["accuracy"]
    assert accuracy["metric"] == "top1"
    assert accuracy["level"] == "array"
    assert accuracy["software"] == 1.0
    assert accuracy["samples"] == 16
    assert len(accuracy["chips"]) == 3
    assert accuracy["mean"] == pytest.approx(np.mean(accuracy["chips"]), abs=1e-12)
    assert sum(accuracy["hits"]) == round(sum(accuracy["chips"]) * 16)
    low, high = accuracy["ci95"]
    assert 0 <= low <= accuracy["mean"] <= high <= 1
    assert result["write_noise"]["key"] == {"kind": "sqrt_range", "gamma": 6.0, "sigma": 0.2}
    assert result["write_noise"]["projection"]["gamma"] == 1.0


def test_a_result_repeats_and_depends_on_the_seed() -> None:
    noisy = (f"{GAMMA}=6", "trials.chips=3")
    assert evaluate_point(settings(*noisy)) == evaluate_point(settings(*noisy))
    assert evaluate_point(settings(*noisy)) != evaluate_point(settings(*noisy, "seed=1"))


def test_a_calibrated_clip_equals_the_same_clip_given() -> None:
    noisy = (f"{GAMMA}=7", "trials.chips=2")
    chosen = evaluate_point(settings(*noisy, "mitigation.clip=calibrated"))["accuracy"]
    clip = chosen.pop("clip")
    assert clip in [candidate.canonical() for candidate in candidates(settings().hardware)]
    written = f"mitigation.clip={{ alpha = {clip['alpha']}, beta = {clip['beta']} }}"
    assert evaluate_point(settings(*noisy, written))["accuracy"] == chosen


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
