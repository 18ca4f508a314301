"""Statistics over chips and samples: intervals that cover, and Ctrl-C that keeps what is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.nn import monte_carlo as loop
from ohmformer.nn.convert.convert import convert
from ohmformer.nn.monte_carlo import Interrupted, UnknownInterval, monte_carlo
from ohmformer.nn.shared.state import State
from ohmformer.stats.intervals import Summary, crossed_interval, mean_interval, value_interval

RUNS = 600
FALSE_ALARM = 1e-5
"""Probability that a coverage test fails although the interval covers as claimed."""


def coverage(
    chips: int, samples: int, chip_spread: float, sample_spread: float, seed: int, odds: float = 1.0
) -> tuple[float, float]:
    """Share of simulated studies whose interval holds the truth, and its mean width over that of a perfect one.

    A chip and a sample each shift the log-odds of success by a normal number of that standard deviation.
    """
    rng = np.random.default_rng(seed)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    shift = math.hypot(chip_spread, sample_spread)
    truth = float((weights / weights.sum()) @ (1 / (1 + np.exp(-(odds + shift * nodes)))))
    hits, widths, means = 0, [], []
    for _ in range(RUNS):
        logit = odds + chip_spread * rng.standard_normal((chips, 1)) + sample_spread * rng.standard_normal((1, samples))
        scores = (rng.random((chips, samples)) < 1 / (1 + np.exp(-logit))).astype(float)
        low, high = mean_interval(scores)
        hits += low <= truth <= high
        widths.append(high - low)
        means.append(scores.mean())
    return hits / RUNS, float(np.mean(widths) / (2 * 1.96 * np.std(means)))


@pytest.mark.parametrize(
    "case",
    {
        "many chips, both matter": (10, 100, 0.4, 1.0, 0.94, 1.5),
        "chips matter most": (10, 100, 1.0, 0.5, 0.94, 1.5),
        "samples matter most": (3, 100, 0.0, 2.0, 0.95, 2.0),
        "few chips, both matter": (3, 100, 0.5, 1.0, 0.94, 3.0),
        "two chips that differ much": (2, 100, 0.8, 0.8, 0.94, 9.0),
        "one chip, samples only": (1, 100, 0.0, 1.0, 0.95, 1.4),
        "nearly all right": (5, 200, 0.1, 2.0, 0.95, 2.0, 6.5),
        "nearly all wrong": (5, 200, 0.1, 2.0, 0.95, 2.0, -6.0),
    }.values(),
)
@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_claimed(case: tuple[float, ...]) -> None:
    chips, samples, chip_spread, sample_spread, claim, widest, *odds = case
    share, width = coverage(int(chips), int(samples), chip_spread, sample_spread, int(chips), *odds)
    assert share * RUNS >= stats.binom.ppf(FALSE_ALARM, RUNS, claim)
    assert width < widest, "covers only because it is too wide to say anything"


def test_ignoring_chips_would_not_cover() -> None:
    """The test above can fail: an interval over samples alone misses the truth when chips differ."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        scores = np.repeat(rng.random((3, 1)) < 0.5, 50, axis=1).astype(float)
        low, high = crossed_interval(scores.mean(axis=0), scores.mean(axis=0))
        missed += not low <= 0.5 <= high
    assert missed > 100


@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_intervals_of_shares_hold_the_mean_and_stay_within_bounds(
    chips: int, samples: int, seed: int, p: float
) -> None:
    scores = (np.random.default_rng(seed).random((chips, samples)) < p).astype(float)
    low, high = mean_interval(scores)
    assert 0 <= low <= scores.mean() <= high <= 1
    assert low < high, "a share of finitely many samples is never certain"


def test_two_way_variance_by_hand() -> None:
    chip_means, sample_means = np.array([0.7, 0.8, 0.9]), np.array([0.6, 0.8, 0.9, 0.9])
    parts = [(0.01 / 3, 2), (0.02 / 4, 3)]
    half = math.sqrt(sum(part * stats.t.ppf(0.975, degrees) ** 2 for part, degrees in parts))
    assert crossed_interval(chip_means, sample_means) == pytest.approx((0.8 - half, 0.8 + half), rel=1e-12)


def test_known_intervals() -> None:
    assert mean_interval(np.ones((3, 20))) == pytest.approx((0.025 ** (1 / 20), 1.0))
    exact = stats.binomtest(7, 10).proportion_ci(method="exact")
    assert mean_interval(np.array([[1.0] * 7 + [0.0] * 3])) == (exact.low, exact.high)
    values = np.array([0.5, 0.6, 0.8])
    expected = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert value_interval(values) == pytest.approx(expected)
    assert all(map(math.isnan, value_interval(np.array([0.5]))))
    assert mean_interval(np.full((2, 5), 0.3)) == (0.3, 0.3)


def test_scores_of_one_chip_that_are_no_shares_have_a_student_interval_that_repeats() -> None:
    scores = np.random.default_rng(0).exponential(size=(1, 80))
    low, high = mean_interval(scores)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 79, loc=scores.mean(), scale=stats.sem(scores[0])))
    assert low < scores.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(80), rel=0.5)
    assert mean_interval(scores) == (low, high)


@pytest.fixture
def chips_seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The chips that a run asks for, without a real converted model."""
    seen: list[tuple[int, int]] = []
    handle = SimpleNamespace(state=State())
    monkeypatch.setattr(loop, "crossbars", lambda model: handle)

    def note(_model: nn.Module, chip: int, *, seed: int) -> None:
        handle.state.chip, handle.state.seed = chip, seed
        seen.append((chip, seed))

    monkeypatch.setattr(loop, "set_chip", note)
    return seen


def run(evaluate: Callable[[nn.Module], object], **options: object) -> loop.Stats:
    return monte_carlo(nn.Identity(), evaluate, progress=False, **options)  # type: ignore[arg-type]


def test_every_chip_is_evaluated_once(chips_seen: list[tuple[int, int]]) -> None:
    scores = iter([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    found = run(lambda _: next(scores), chips=3, seed=5)
    assert chips_seen == [(0, 5), (1, 5), (2, 5)]
    assert found.chips == (0.75, 1.0, 0.25)
    assert found.mean == pytest.approx(2 / 3)
    assert found.samples == 4
    assert found.scores is not None
    assert found.ci95 == mean_interval(found.scores)
    assert not found.interrupted


@pytest.mark.usefixtures("chips_seen")
@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([[0.3], [0.31], [0.32]], "chips = 3, scores per chip = 1: too few .* score more samples"),
        ([[0.3, 0.3], [0.3, 0.3]], "chips = 2, scores per chip = 2: too few"),
        ([[0.5]], "chips = 1, scores per chip = 1: too few"),
        ([0.5, 0.5], "chips = 2, scores per chip = 1: too few .* take more chips"),
    ],
)
def test_an_interval_that_cannot_be_known_is_nan_and_says_so(returned: list[object], said: str) -> None:
    values = iter(returned)
    with pytest.warns(UnknownInterval, match=said):
        found = run(lambda _: next(values), chips=len(returned))
    assert all(map(math.isnan, found.ci95))


@pytest.mark.usefixtures("chips_seen")
def test_one_number_of_one_chip_has_no_interval_and_no_warning() -> None:
    assert all(map(math.isnan, run(lambda _: 0.5, chips=1).ci95))


@pytest.mark.usefixtures("chips_seen")
def test_a_single_number_per_chip() -> None:
    values = iter([0.5, 0.6, 0.8])
    found = run(lambda _: next(values), chips=3)
    assert found.chips == (0.5, 0.6, 0.8)
    assert found.ci95 == value_interval(np.array([0.5, 0.6, 0.8]))
    assert found.samples is None
    assert found.scores is None


@pytest.mark.usefixtures("chips_seen")
@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([[0.0], [0.0, 1.0]], r"\[1\], then \[2\]"),
        ([[math.nan]], "NaN or infinity"),
        ([[[0.0], [1.0]]], r"array \[2, 1\]"),
        ([[]], r"array \[0\]"),
        ([None], "returned None; end it with `return`"),
        ([{"loss": 1.0}], "returned a dict"),
        ([["a"]], "returned a list"),
        ([torch.tensor([1 + 1j])], "returned a Tensor"),
    ],
)
def test_scores_that_make_no_sense_are_refused(returned: list[object], said: str) -> None:
    values = iter(returned)
    with pytest.raises(BadInput, match=said):
        run(lambda _: next(values), chips=len(returned))


@pytest.mark.parametrize("chips", [0, -1, 1.5, 2.0, "2", None, math.nan, True, 10**9])
def test_a_number_of_chips_that_makes_no_sense_is_refused(chips_seen: list[tuple[int, int]], chips: object) -> None:
    with pytest.raises(BadInput, match=f"chips = {chips!r}: must be a whole number from 1"):
        run(lambda _: 1.0, chips=chips)
    assert not chips_seen


@pytest.mark.parametrize("seed", [-1, 1.5, "x", True, 2**64])
def test_a_seed_that_is_none_is_refused(chips_seen: list[tuple[int, int]], seed: object) -> None:
    with pytest.raises(BadInput, match="seed = "):
        run(lambda _: 1.0, chips=1, seed=seed)
    assert not chips_seen


@pytest.mark.usefixtures("chips_seen")
@pytest.mark.parametrize(
    "scores",
    [
        torch.tensor([0.5, 1.0], requires_grad=True),
        torch.tensor([0.5, 1.0], dtype=torch.bfloat16),
        [torch.tensor(0.5, requires_grad=True), 1.0],
        (0.5, 1),
        np.array([0.5, 1.0], dtype=np.float16),
    ],
    ids=["gradient", "bfloat16", "list of tensors", "tuple", "numpy"],
)
def test_scores_may_come_in_any_form(scores: object) -> None:
    assert run(lambda _: scores, chips=2).chips == (0.75, 0.75)


def test_seeds_are_those_of_the_model_unless_given_and_the_model_is_left_as_it_was() -> None:
    layer, x = nn.Linear(8, 4), torch.linspace(-1, 1, 24).reshape(3, 8)

    def scored(own: int, **options: int) -> tuple[float, ...]:
        model = convert(layer, load("clipformer_tcad_2024"), sample=x, seed=own, chip=7)
        with torch.no_grad():
            before = model(x)
            found = monte_carlo(model, lambda m: m(x).sum(), chips=2, **options).chips
            assert torch.equal(model(x), before), "the model is on its own chip again"
        return found

    assert scored(1) != scored(2)
    assert scored(1) == scored(2, seed=1)


@pytest.mark.parametrize("seed", [None, 3])
def test_an_evaluation_that_chooses_the_chip_itself_is_refused(seed: int | None) -> None:
    """All chips would be the same one, and their interval one of chance."""
    model = nn.Linear(4, 2)
    converted = convert(model, load("clipformer_tcad_2024"), sample=torch.ones(2, 4))

    def evaluate(one: nn.Module) -> float:
        loop.set_chip(one, 0 if seed is None else 1, seed=seed)
        return 1.0

    with pytest.raises(BadInput, match="evaluate changed the chip of the model"):
        monte_carlo(converted, evaluate, chips=2, progress=False)


@pytest.mark.parametrize("chips", [(1.0,), (1.0, 2.0, 3.0), (1.0, math.nan)])
def test_a_summary_that_is_not_of_all_chips_or_not_finite_is_refused(
    chips_seen: list[tuple[int, int]], chips: tuple[float, ...]
) -> None:
    with pytest.raises(BadInput, match="one finite value per chip"):
        run(lambda model: [1.0, 0.0], chips=2, summarize=lambda scores: Summary(1.0, (0.0, 1.0), chips))


@pytest.mark.usefixtures("chips_seen")
def test_ctrl_c_keeps_the_chips_that_are_done() -> None:
    count = 0

    def evaluate(_: nn.Module) -> list[float]:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return [1.0, 0.0]

    with pytest.warns(Interrupted, match="2 of 5 chips"):
        found = run(evaluate, chips=5)
    assert found.interrupted
    assert found.chips == (0.5, 0.5)
    count = 0
    with pytest.raises(KeyboardInterrupt):
        run(evaluate, chips=5, partial=False)
    assert count == 3


@pytest.mark.usefixtures("chips_seen")
def test_ctrl_c_before_the_first_chip_is_ctrl_c() -> None:
    def evaluate(_: nn.Module) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(evaluate, chips=5)


def test_masked_scores_are_refused_and_an_empty_mask_is_none(chips_seen: list[tuple[int, int]]) -> None:
    scores = np.ma.masked_array([1.0, 0.0, 9.0], mask=[False, False, True])
    with pytest.raises(BadInput, match="returned a masked array; return the scores that count"):
        run(lambda model: scores)
    assert run(lambda model: np.ma.masked_array([1.0, 0.0])).mean == 0.5


@pytest.mark.parametrize(
    "scores",
    [np.array([1, "a"], dtype=object), np.array([1j]), np.array(["1"]), np.zeros(2, dtype=[("a", "f8")]), [], "1", {}],
)
def test_scores_that_are_no_real_numbers_are_refused(chips_seen: list[tuple[int, int]], scores: object) -> None:
    with pytest.raises(BadInput, match="evaluate returned"):
        run(lambda model: scores)
