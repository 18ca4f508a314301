"""Losses have units and paired intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ohmformer.errors import BadInput
from ohmformer.stats.metrics import perplexity_summary
from ohmformer.study.requirements.loss import LossBound, loss_of, read_loss
from ohmformer.study.results.spec import Accuracy
from ohmformer.tasks.metric_kinds import METRICS

TOP1, PERPLEXITY = METRICS["top1"], METRICS["perplexity"]


@pytest.mark.parametrize("text", ["1 %", "1%", " 1 point ", "1 points", "1 pp", "1.0 %", "1e0 %"])
def test_one_percentage_point(text: str) -> None:
    assert read_loss(text, TOP1) == LossBound(0.01, "points")


def test_other_metrics_are_relative() -> None:
    assert read_loss("150 %", PERPLEXITY) == LossBound(1.5, "relative")
    assert read_loss("0.5 %", METRICS["spearman"]) == LossBound(0.005, "relative")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("1", "loss = '1': has no unit"), (1, "loss = 1: has no unit"), (0.01, "has no unit"), (None, "loss = None"),
        ("0 %", "must be above 0"), ("-1 %", "must be above 0"), ("100 %", "below 100 %"), ("nan %", "not a number"),
        ("inf %", "not a number"), ("", "has no unit"), ("1 % %", "not a number"), ("one %", "not a number"),
        (True, "has no unit"), ("1e400 %", "below 100 %"),
    ],
)  # fmt: skip
def test_a_loss_without_a_meaning_is_refused(loss: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        read_loss(loss, TOP1)


def test_perplexity_has_no_points() -> None:
    with pytest.raises(BadInput, match="does not count in points"):
        read_loss("1 point", PERPLEXITY)


def accuracy(scores: np.ndarray, metric: str = "top1", **more: Any) -> Accuracy:
    chips = tuple(scores.mean(axis=1).tolist())
    mean = float(scores.mean())
    values = {"ci95": (mean, mean), "chips": chips, "samples": scores.shape[1], "mean": mean, "software": mean}
    return Accuracy.model_validate({"metric": metric, "level": "array", **values, **more})


def hits(scores: np.ndarray) -> Accuracy:
    return accuracy(scores, score_sums=tuple(int(n) for n in scores.sum(axis=0)))


def test_points_are_paired_sample_by_sample() -> None:
    """Samples that are hard for both add nothing to the interval."""
    random = np.random.default_rng(0)
    clean = (random.random(400) < 0.5).astype(float)
    noisy = np.stack([np.where(random.random(400) < 0.02, 0.0, clean) for _ in range(4)])
    loss = loss_of(hits(noisy), hits(np.stack([clean] * 4)))
    assert loss.mean == pytest.approx((np.stack([clean] * 4) - noisy).mean())
    assert loss.near < loss.mean < loss.far < loss.mean + 0.02


def test_a_relative_loss_is_that_of_the_ratio() -> None:
    """Perplexity that is 3 % higher in every window is 3 % higher with no doubt about windows."""
    random = np.random.default_rng(1)
    windows, tokens = random.normal(3, 0.5, 30), np.full(30, 100.0)
    shifts = np.log(1.03) + np.array([-1e-3, 0.0, 1e-3])
    noisy, clean = (perplexity_summary(windows + s[:, None], tokens) for s in (shifts, np.zeros(3)))
    here, there = (
        accuracy(np.ones((3, 30)), "perplexity", mean=s.mean, chips=s.chips, left_out=s.jackknife_means,
                 software=clean.mean, ci95=s.ci95) for s in (noisy, clean)
    )  # fmt: skip
    loss = loss_of(here, there)
    assert loss.mean == pytest.approx(0.03, abs=1e-6)
    assert 0.02 < loss.near < 0.03 < loss.far < 0.04


def test_cosines_have_intervals_by_sample() -> None:
    random = np.random.default_rng(2)
    noisy = 0.98 - 0.01 * random.random((3, 50))
    here, there = (
        accuracy(scores, "fidelity", score_sums=tuple(scores.sum(axis=0))) for scores in (noisy, np.ones((3, 50)))
    )
    loss = loss_of(here, there)
    assert loss.mean == pytest.approx(1 - noisy.mean())
    assert loss.near < loss.mean < loss.far < 0.03


@pytest.mark.parametrize("shape", [(1, 50), (4, 3)])
def test_too_few_chips_or_samples_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match="too few to show how much the loss varies"):
        loss_of(hits(np.zeros(shape)), hits(np.ones(shape)))


def test_a_value_holds_by_the_far_end() -> None:
    scores = np.ones((4, 100))
    scores[:, :3] = 0.0
    loss, bound = loss_of(hits(scores), hits(np.ones((4, 100)))), LossBound(0.04, "points")
    assert loss.mean < bound.most < loss.far
    assert bound.may_hold(loss)
    assert not bound.holds(loss)
