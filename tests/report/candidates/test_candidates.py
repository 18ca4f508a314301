"""Candidates of a budget as a table and as a figure, also with hostile names and without prices."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError
from rich.console import Console

from ohmformer.report.candidates.candidate_figure import draw, save_candidate_figure
from ohmformer.report.candidates.candidate_table import MOST, candidate_tables, change, comparisons
from ohmformer.report.view import kv_name
from ohmformer.study.results.candidates import ComparisonResult
from ohmformer.study.results.spec import MeasuredPoint
from tests.cases import quick_first
from tests.report.results import GAMMA, changed, point, study


def candidate(name: str, loss: float, latency: float | None, **changes: Any) -> dict[str, Any]:
    cost = None if latency is None else {"latency": latency, "energy": 2e-6, "cells": 1280, "area": 1e-6}
    return {"name": name, "loss": loss, "expected": 0.5, "cost": cost, "within": True, "chosen": False, **changes}


def comparison(*candidates: dict[str, Any]) -> dict[str, Any]:
    return {"limits": {"latency": 1.1}, "floor": 1.0, "candidates": candidates}


COMPARED = comparison(
    candidate("none", 2.0, 1e-6, expected=1.0),
    candidate("hadamard", 1.5, 1.05e-6, chosen=True),
    candidate("same $x_y$ \x1b[31m", 1.7, 1.06e-6),
    candidate("residual", 0.9, 1.6e-6, within=False),
)


def with_comparison(gamma: float = 5.0, held: dict[str, Any] = COMPARED) -> MeasuredPoint:
    found = point(0.5, recipe="hadamard", gamma=gamma, **{GAMMA: gamma})
    return changed(found, "accuracy.chosen", {"recipe": "hadamard", "comparison": held})


def shown(*points: MeasuredPoint) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(candidate_tables(study(*points)))
    return captured.get()


def test_the_table_says_what_each_candidate_brings_and_costs() -> None:
    text = shown(with_comparison())
    assert "candidates for K and V, write noise γ = 5.0: latency +10 %" in text
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in text.split("\n")
        if "│" in line
    }
    assert rows["none"] == ["1", "1", "1 us", "2 uJ", "1,280", "1 mm²", "", "within"]
    assert rows["hadamard"] == ["0.5", "0.5", "+5 %", "+0 %", "+0 %", "+0 %", "", "chosen"]
    assert rows["residual"][2] == "+60 %"
    assert rows["residual"][-1] == "beyond"
    assert "\x1b[31m" not in text


def test_few_points_are_shown_and_others_counted() -> None:
    text = shown(*(with_comparison(gamma) for gamma in range(MOST + 3)))
    assert text.count("candidates for K and V") == MOST
    assert "results.json has the candidates of 3 more points" in text
    assert comparisons(study(point(0.5, recipe="hadamard"), point(0.5))) == []


@pytest.mark.slow
def test_the_figure_has_a_row_for_each_point_with_prices(tmp_path: Path) -> None:
    unpriced = comparison(candidate("none", 2.0, None), candidate("hadamard", 1.5, None, chosen=True))
    figure = draw(study(with_comparison(), with_comparison(6.0), with_comparison(7.0, unpriced)))
    assert len(figure.axes) == 4
    files = save_candidate_figure(study(with_comparison()), tmp_path)
    assert sorted(file.name for file in files) == ["candidates.png", "candidates.svg"]
    assert all(file.stat().st_size for file in files)
    assert save_candidate_figure(study(with_comparison(7.0, unpriced)), tmp_path / "none") == []
    assert save_candidate_figure(study(point(0.5)), tmp_path / "none") == []


@pytest.mark.parametrize(
    "word", quick_first([r"$\frac{$", "\x1b[31m", "日本 語", "x" * 5000, "a b " * 500, "\ud800"], 2)
)
def test_any_text_is_drawn_as_it_is(word: str, tmp_path: Path) -> None:
    held = comparison(candidate("none", 2.0, 1e-6), candidate(word[:200], 1.5, 1.05e-6, chosen=True))
    found = study(changed(with_comparison(5.0, held), "label", word), name=word)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg, png = save_candidate_figure(found, tmp_path)
    ElementTree.parse(svg)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_what_has_no_price_is_named_below_the_table() -> None:
    held = {
        **comparison(candidate("none", 2.0, 1e-6, chosen=True)),
        "left_out": {"a": "no ADC; add one", "b": "no ADC; add one"},
    }
    assert "left out, without a price: a; b: no ADC; add one" in shown(with_comparison(5.0, held))
    assert "left_out" not in ComparisonResult.model_validate(COMPARED).model_dump()


def test_the_line_joins_candidates_that_no_other_one_beats() -> None:
    found = ComparisonResult.model_validate(COMPARED)
    assert [each.name for each in found.best_for("latency")] == ["none", "hadamard", "residual"]
    assert [each.name for each in found.best_for("energy")] == ["residual"]


def test_one_candidate_is_chosen_and_it_is_within_the_budget() -> None:
    for wrong in (
        comparison(candidate("none", 2.0, 1e-6)),
        comparison(candidate("none", 2.0, 1e-6, chosen=True), candidate("a", 1.0, 1e-6, chosen=True)),
        comparison(candidate("none", 2.0, 1e-6, chosen=True, within=False)),
        comparison(),
    ):
        with pytest.raises(ValidationError):
            ComparisonResult.model_validate(wrong)


def test_budgets_and_changes_in_words() -> None:
    assert kv_name({"auto": True}) == "conditioned, auto"
    assert kv_name({"auto": True, "latency": "+10 %", "cells": 1.0}) == "conditioned, auto, latency +10 %, cells 1.0"
    assert kv_name({"basis": "hadamard", "residual": {}}) == "hadamard, residual writing"
    assert [change(ratio) for ratio in (1.0, 1 - 1e-9, 1.234, 0.75)] == ["+0 %", "+0 %", "+23.4 %", "-25 %"]
    assert change(None) == ""
