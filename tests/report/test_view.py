"""Which points become lines, which become bars, and what they are called."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.report.table import digital_line
from ohmformer.report.view import axis_name, kv_name, setting, sigma, view
from tests.report.results import DEMO, GAMMA, changed, point, study


def test_the_demo_is_three_lines_over_gamma_and_bars_for_what_is_labeled() -> None:
    seen = view(DEMO)
    assert seen.x == GAMMA
    assert [series.name for series in seen.series] == [
        "no mitigation",
        "ClipFormer (2, 0.25)",
        "ClipFormer, calibrated",
    ]
    assert [[x for x, _ in series.points] for series in seen.series] == [[0, 3, 6]] * 3
    assert [name for name, _ in seen.bars] == ["in K only", "in V only"]
    assert sigma(seen) == 0.2


def test_points_of_a_line_are_sorted_and_none_is_lost() -> None:
    backwards = study(*DEMO.points[::-1])
    drawn = [entry for series in view(backwards).series for entry in series.points]
    assert len(drawn) == 9
    assert all([x for x, _ in series.points] == [0, 3, 6] for series in view(backwards).series)


def test_without_a_swept_number_every_point_is_a_bar() -> None:
    seen = view(study(*(point(0.5, **{"hardware.base": name}) for name in ("a", "b"))))
    assert (seen.x, seen.series) == ("", ())
    assert [name for name, _ in seen.bars] == ["base = a", "base = b"]
    assert [name for name, _ in view(study(point(0.5))).bars] == ["accuracy"]


def test_a_label_with_a_sweep_of_its_own_names_each_point() -> None:
    bars = [point(0.5, label="more bits", **{"hardware.attention.array.bits": bits}) for bits in (4, 8)]
    assert [name for name, _ in view(study(*bars)).bars] == [
        "more bits: attention.array.bits = 4",
        "more bits: attention.array.bits = 8",
    ]


def test_gamma_sigma_needs_one_sigma() -> None:
    first, second = (point(0.5, gamma=g, **{GAMMA: g}) for g in (0, 1))
    assert sigma(view(study(first, second))) == 0.2
    for other in ({"kind": "sqrt_range", "gamma": 1, "sigma": 0.1}, None):
        assert sigma(view(study(first, changed(second, "write_noise.key", other)))) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (GAMMA, "write noise γ"),
        ("hardware.attention.key.array.cell.write_noise.gamma", "write noise γ of attention.key"),
        ("hardware.attention.array.bits", "attention.array.bits"),
        ("trials.chips", "trials.chips"),
    ],
)
def test_axes_have_names(path: str, name: str) -> None:
    assert axis_name(path) == name


@pytest.mark.parametrize(
    ("kv", "name"),
    [
        ("none", "not conditioned"),
        ("auto", "conditioned, auto"),
        ({"auto": True, "cells": 1.0, "first_tokens": 4}, "conditioned, auto, cells 1.0, first 4 tokens digital"),
        ({"redundancy": 2}, "2 copies"),
        ({"redundancy": 1}, "not conditioned"),
        (
            {"mean": True, "basis": "balanced", "radix": 1, "redundancy": 4},
            "mean removed, balanced, radix 1, 4 copies",
        ),
        ({"unbiased": True, "redundancy": None}, "unbiased"),
        ({"first_tokens": 4, "last_tokens": 0}, "first 4 tokens digital"),
        (
            {"basis": "hadamard", "residual": {}, "first_tokens": 1, "last_tokens": 16},
            "hadamard, residual writing, first token digital, last 16 tokens digital",
        ),
    ],
)
def test_conditionings_have_names(kv: Any, name: str) -> None:
    assert kv_name(kv) == name


def test_a_swept_kind_is_named_in_words() -> None:
    """Its table was once shown as Python writes it."""
    noise = {"kind": "sqrt_range", "gamma": 2, "sigma": "3 %"}
    said = setting("hardware.attention.array.cell.write_noise", noise)
    assert said == "attention.array.cell.write_noise = sqrt range, gamma 2, sigma 3 %"
    assert setting("dataflow", {"block": 4}).endswith(" = block 4")


def test_the_share_of_digital_tokens_stands_below_the_table() -> None:
    shares = [changed(point(0.5), "accuracy.digital_tokens", share) for share in (0.02, 0.1)]
    assert digital_line(study(point(0.5))) == ""
    assert digital_line(study(point(0.5), shares[0])) == "digital tokens of K and V: 2.00 %"
    assert digital_line(study(*shares)) == "digital tokens of K and V: 2.00 % to 10.00 %"
    with pytest.raises(ValueError, match="digital_tokens"):
        changed(point(0.5), "accuracy.digital_tokens", 1.5)


def test_an_empty_table_has_a_name() -> None:
    names = [setting("rules", value) for value in ({}, {"*.head": "digital"})]
    assert names == ["rules = none", "rules = *.head digital"]
