"""Correlation and perplexity, with intervals that hold the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ohmformer.errors import BadInput
from ohmformer.stats.intervals import paired_interval, value_interval
from ohmformer.stats.metrics import correlation_summary, perplexity_summary


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_correlations_are_those_of_scipy(kind: str) -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=40)
    scores = truth + random.normal(size=(3, 40)).round(1)
    reference = getattr(stats, f"{kind}r")
    expected = [reference(row, truth).statistic for row in scores]
    found = correlation_summary(scores, truth, kind)  # type: ignore[arg-type]
    assert found.chips == pytest.approx(expected)
    assert found.mean == pytest.approx(np.mean(expected))
    low, high = found.ci95
    assert -1 < low < found.mean < high < 1


def coverage(chips: int, pairs: int, chip_spread: float, *, items: int = 0, runs: int = 300) -> float:
    """How often the interval holds the correlation that infinitely many chips and pairs would have."""
    random = np.random.default_rng(1)
    places = np.array([(i, j) for i in range(items) for j in range(i + 1, items)]) if items else None
    held = 0
    for _ in range(runs):
        truth, extra = (_pairwise(random, places) if places is not None else random.normal(size=pairs) for _ in "ab")
        own = random.normal(scale=chip_spread, size=(chips, len(truth))) if chip_spread else np.zeros((chips, 1))
        found = correlation_summary(truth + extra + own, truth, "pearson", places)
        held += found.ci95[0] <= 1 / math.sqrt(2 + chip_spread**2) <= found.ci95[1]
    return held / runs


def _pairwise(random: np.random.Generator, places: np.ndarray) -> np.ndarray:
    """Values of pairs, most of which comes from their two items; of variance 1."""
    item = random.normal(size=places.max() + 1)
    return math.sqrt(0.4) * item[places].sum(axis=1) + math.sqrt(0.2) * random.normal(size=len(places))


@pytest.mark.slow
def test_the_interval_of_a_correlation_covers_the_truth() -> None:
    assert coverage(1, 60, 0.0) > 0.91
    assert coverage(3, 60, 0.5) > 0.91


def test_pairs_that_share_items_are_not_taken_for_independent() -> None:
    assert coverage(1, 0, 0.0, items=20) > 0.88
    random = np.random.default_rng(2)
    places = np.array([(i, j) for i in range(20) for j in range(i + 1, 20)])
    truth = _pairwise(random, places)
    scores = (truth + _pairwise(random, places))[None]
    shared, alone = (correlation_summary(scores, truth, "pearson", which).ci95 for which in (places, None))
    assert shared[1] - shared[0] > 1.5 * (alone[1] - alone[0])


@pytest.mark.parametrize(
    ("scores", "truth", "said"),
    [
        (np.zeros((1, 3)), np.arange(3.0), "needs 4 pairs or more"),
        (np.ones((2, 5)), np.arange(5.0), "similarities are the same for all pairs"),
        (np.random.default_rng(0).normal(size=(2, 5)), np.ones(5), "scores in the data are the same"),
    ],
)
def test_what_has_no_correlation_is_refused(scores: np.ndarray, truth: np.ndarray, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        correlation_summary(scores, truth, "pearson")


def test_perplexity_weighs_windows_by_their_tokens() -> None:
    tokens = np.array([10.0, 10.0, 5.0])
    losses = np.array([[2.0, 3.0, 1.0], [2.2, 3.2, 1.2]])
    found = perplexity_summary(losses, tokens)
    means = (losses * tokens).sum(axis=1) / tokens.sum()
    assert found.chips == pytest.approx(np.exp(means))
    assert found.mean == pytest.approx(math.exp(means.mean()))
    low, high = found.ci95
    assert low < found.mean < high


def test_the_interval_of_a_perplexity_covers_the_truth() -> None:
    random, held = np.random.default_rng(3), 0
    for _ in range(400):
        tokens = random.integers(20, 40, size=12).astype(float)
        windows, chips = random.normal(3.0, 0.4, size=12), random.normal(0, 0.1, size=(3, 1))
        low, high = perplexity_summary(windows + chips, tokens).ci95
        held += low <= math.exp(3.0) <= high
    assert held / 400 > 0.92


def test_perplexities_that_overflow_and_without_interval_are_refused() -> None:
    with pytest.raises(BadInput, match="too large for a float64 number"):
        perplexity_summary(np.full((2, 3), 1000.0), np.ones(3))
    with pytest.raises(BadInput, match="use more windows or chips"):
        perplexity_summary(np.ones((1, 1)), np.ones(1))


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@pytest.mark.parametrize("chips", [1, 2])
def test_a_correlation_that_is_perfect_on_a_few_pairs_may_be_any_on_others(kind: str, chips: int) -> None:
    truth = np.arange(4.0)
    for sign in (1.0, -1.0):
        found = correlation_summary(np.tile(sign * truth, (chips, 1)), truth, kind)  # type: ignore[arg-type]
        assert found.mean == pytest.approx(sign)
        assert found.ci95 == (-1.0, 1.0)


def test_windows_that_do_not_show_how_much_they_vary_give_no_interval() -> None:
    for losses in ([[1.0], [2.0]], [[1.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]):
        found = perplexity_summary(np.array(losses), np.ones(len(losses[0])))
        assert all(map(math.isnan, found.ci95))


def paired_coverage(kind: str, chips: int, count: int, runs: int = 300) -> tuple[float, float]:
    """How often paired intervals hold the true gain, and how often those over chips alone do.

    What a setting changes depends on the pair or window, so other ones would give another gain.
    """
    random = np.random.default_rng(3)
    held = np.zeros(2)
    for _ in range(runs):
        if kind == "perplexity":
            base, effect = random.normal(3.0, 0.2, count), random.normal(0.1, 0.2, count)
            settings = [base, base + effect]
            noise = 0.02 * random.normal(size=(2, chips, count))
            a, b = (perplexity_summary(s + n, np.ones(count)) for s, n in zip(settings, noise, strict=True))
            right = math.exp(3.1) - math.exp(3.0)
        else:
            truth, extra, change = random.normal(size=(3, count))
            noise = 0.05 * random.normal(size=(2, chips, count))
            settings = [truth + extra, truth + extra + change]
            a, b = (correlation_summary(s + n, truth, "pearson") for s, n in zip(settings, noise, strict=True))
            right = 1 / math.sqrt(3 + 0.05**2) - 1 / math.sqrt(2 + 0.05**2)
        difference = np.subtract(b.chips, a.chips)
        for n, (low, high) in enumerate(
            (paired_interval(difference, np.subtract(b.jackknife_means, a.jackknife_means)), value_interval(difference))
        ):
            held[n] += low <= right <= high
    return float(held[0] / runs), float(held[1] / runs)


@pytest.mark.parametrize(("kind", "chips", "count"), [("pearson", 3, 60), ("perplexity", 3, 12), ("perplexity", 2, 40)])
@pytest.mark.slow
def test_paired_gains_of_whole_metrics_cover_other_chips_and_other_samples(kind: str, chips: int, count: int) -> None:
    both, chips_alone = paired_coverage(kind, chips, count)
    # Of 300 studies fewer than 0.88 hold the truth with a chance of 1e-6 where 0.95 do.
    assert both > 0.88
    assert chips_alone < 0.75, "the samples do not matter here, so the test says nothing"
