"""Accuracies measured elsewhere against a paper's: the fit of sigma, shares of what was lost, and orders."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmformer.errors import BadInput
from ohmformer.validation.measured_accuracy import Gain, Measured, Series, between

SOFTWARE, CHANCE = 0.8, 0.001
OWN = {"software": 0.9, "chance": 0.1, "sigma": 0.2}
GAMMAS = (3.0, 4.0, 5.0)
FIT = {"series": "standard.none", "gamma": [3], "accuracy": [0.7]}


def kept(strength: float) -> float:
    """Share of the accuracy above chance that a made-up model keeps."""
    return 1 - 0.7 * strength


def made(sigma: float, scale: float = 1.0, gains: Sequence[Gain] = ()) -> Measured:
    """A model whose accuracy falls evenly, and a paper that used it at some sigma."""
    means = {str(gamma): 0.1 + 0.8 * kept(gamma * 0.2) for gamma in range(8)}
    better = {str(gamma): 0.1 + 0.8 * (1 + kept(gamma * 0.2)) / 2 for gamma in range(8)}
    series = {"standard": Series.model_validate({**OWN, "means": {"none": means, "clip": better}})}
    paper = [scale * (CHANCE + (SOFTWARE - CHANCE) * kept(gamma * sigma)) for gamma in GAMMAS]
    return Measured(series, gains, "standard", SOFTWARE, CHANCE, ("standard.none", GAMMAS, paper))


@settings(max_examples=20)
@given(st.floats(0.05, 0.25))
def test_the_sigma_of_a_paper_that_agrees_is_found(sigma: float) -> None:
    found = made(sigma)
    assert found.sigma == pytest.approx(sigma, abs=2e-4)
    assert found.misfit == pytest.approx(0.0, abs=1e-3)
    assert found.accuracy(["standard.none"], [4]) == pytest.approx(found.fitted[2][1], abs=1e-3)


def test_what_cannot_be_met_leaves_a_misfit() -> None:
    skewed = made(0.1)
    paper = [value + shift for value, shift in zip(skewed.fitted[2], (0.1, 0.0, -0.1), strict=True)]
    found = Measured(skewed.series, [], "standard", SOFTWARE, CHANCE, ("standard.none", GAMMAS, paper))
    assert found.misfit is not None
    assert 0.03 < found.misfit < 0.09


def test_half_of_what_was_lost_is_returned() -> None:
    assert made(0.1).returned(["standard.clip", "standard.none"], [5]) == pytest.approx(0.5, abs=1e-3)


def test_a_best_sigma_at_the_edge_of_what_was_measured_is_none() -> None:
    beyond = made(0.1, scale=0.1)
    assert beyond.sigma is None
    assert beyond.accuracy(["standard.none"], [3]) is None


def test_orders_go_by_lower_bounds_and_growth_by_means() -> None:
    def gain(gamma: float, mean: float, low: float) -> Gain:
        return Gain(better="a.clip", than="a.none", gamma=gamma, mean=mean, low=low, high=1.0)

    found = made(0.1, gains=[gain(3, 0.1, -0.01), gain(4, 0.2, 0.1), gain(5, 0.15, 0.1)])
    pair = ["a.none", "a.clip"]
    assert [found.above(pair, [gamma]) for gamma in (3, 4, 6)] == [0.0, 1.0, None]
    assert found.above(pair, [3, 4]) == 0.0
    assert found.grows(pair[::-1], [3, 4]) == 1.0
    assert found.grows(pair[::-1], [3, 4, 5]) == 0.0
    assert found.grows(pair[::-1], [4, 6]) is None


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=2, max_size=5, unique_by=lambda p: p[0]))
def test_values_between_points_lie_between_them(points: list[tuple[float, float]]) -> None:
    points = sorted(points)
    (x0, y0), (x1, y1) = points[:2]
    assert between(points, x0) == pytest.approx(y0)
    middle = between(points, (x0 + x1) / 2)
    assert middle is not None
    assert min(y0, y1) - 1e-9 <= middle <= max(y0, y1) + 1e-9
    assert between(points, points[-1][0] + 1) is None


def test_bad_files_and_tables_are_one_line(tmp_path: Path) -> None:
    table = {"reference": "standard", "software": 0.8, "chance": 0.0}
    with pytest.raises(BadInput, match=r"measured\.fit: is missing"):
        Measured.read(tmp_path, table)
    fit = {"series": "standard.none", "gamma": [3], "accuracy": [0.7]}
    assert Measured.read(tmp_path, {**table, "fit": fit}).sigma is None
    (tmp_path / "accuracy.json").write_text("{")
    with pytest.raises(BadInput, match="is not JSON"):
        Measured.read(tmp_path, {**table, "fit": fit})
    (tmp_path / "accuracy.json").write_text(json.dumps({"series": {}, "gains": []}))
    found = Measured.read(tmp_path, {**table, "fit": fit})
    with pytest.raises(BadInput, match="series = \\['a', 'b'\\]: must have 1 here"):
        found.accuracy(["a", "b"], [3])


BROKEN = [
    ("measured.software = nan", {"software": math.nan}, None),
    ("measured: software = 0.9 is not above chance = 0.9; correct", {"chance": 0.9, "software": 0.9}, None),
    ("measured.fit = 3: must be a table", {"fit": 3}, None),
    ("measured.fit: gamma and accuracy have different numbers", {"fit": {**FIT, "gamma": [3, 4]}}, None),
    ("measured.fit.gamma.0 = 0: must be > 0", {"fit": {**FIT, "gamma": [0]}}, None),
    ("accuracy.json: is not JSON", {}, '{"series": {"a": {"software": NaN}}}'),
    ("accuracy.json: must be a table", {}, "[]"),
    ("accuracy.json: series = 3: must be a table", {}, '{"series": 3}'),
    (
        "accuracy.json: series.a.software: is missing",
        {},
        '{"series": {"a": {"chance": 0.1, "sigma": 0.2}}}',
    ),
    ("accuracy.json: series.a.sigma = 1e+300", {}, json.dumps({"series": {"a": {**OWN, "sigma": 1e300, "means": {}}}})),
    ("accuracy.json: series.a", {}, json.dumps({"series": {"a": {**OWN, "chance": 0.9, "means": {}}}})),
    ("accuracy.json: series.a.means", {}, json.dumps({"series": {"a": {**OWN, "means": {"none": {"x": 0.1}}}}})),
    ("accuracy.json: gains.0", {}, '{"gains": [{"better": 3}]}'),
]


@pytest.mark.parametrize(("said", "changes", "record"), BROKEN)
def test_wrong_values_in_both_files_are_one_line(
    tmp_path: Path, said: str, changes: dict[str, Any], record: str | None
) -> None:
    if record is not None:
        (tmp_path / "accuracy.json").write_text(record)
    table = {"reference": "standard", "software": 0.8, "chance": 0.0, "fit": FIT, **changes}
    with pytest.raises(BadInput) as caught:
        Measured.read(tmp_path, table)
    assert said in str(caught.value).replace("'", "")


def test_a_pipe_in_place_of_the_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "accuracy.json")
    with pytest.raises(BadInput, match="is a folder, pipe or device"):
        Measured.read(tmp_path, {"reference": "standard", "software": 0.8, "chance": 0.0, "fit": FIT})
