"""Fits recover the parameters that data were made with, within their own standard errors; messy tables are read.

Parameters lie within 5 standard errors: a false alarm once in 1.7 million comparisons; seeds are fixed.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ohmformer as of
from ohmformer.device.spec import Cell
from ohmformer.fitting.fit import fit_cell
from ohmformer.fitting.measurements import read_measurements
from ohmformer.schema import load

TARGETS = np.repeat(np.linspace(1, 20, 8), 60) * 1e-6
G = TARGETS / 20e-6


def frame(std: Any, mean: Any = None, seed: int = 1) -> dict[str, Any]:
    numbers = np.random.default_rng(seed).standard_normal(len(TARGETS))
    held = (TARGETS if mean is None else mean) + std * numbers
    return {"target": TARGETS, "measured": held.clip(0)}


@pytest.mark.parametrize(
    ("label", "std", "name", "value"),
    [
        ("uniform", 0.05 * 19e-6, "sigma", 0.05),
        ("proportional", 0.08 * TARGETS, "sigma", 0.08),
        ("sqrt_range", 0.1 * np.sqrt((TARGETS - 1e-6) * 19e-6), "sigma", 0.1),
    ],
)
def test_a_law_is_found_with_its_parameter(label: str, std: Any, name: str, value: float) -> None:
    fit = fit_cell(frame(std))
    assert fit.chosen.label == label
    assert abs(fit.chosen.values[name] - value) <= 5 * fit.chosen.errors[name]
    assert fit.chosen.errors[name] == pytest.approx(value / math.sqrt(2 * len(TARGETS)), rel=0.15)
    assert getattr(fit.cell.write_noise, name) == fit.chosen.values[name]
    assert (fit.cell.g_min, fit.cell.g_max) == pytest.approx((1e-6, 20e-6))
    assert not fit.doubtful


def test_a_polynomial_is_found_with_its_coefficients() -> None:
    true = (0.01, 0.30, -0.28)
    fit = fit_cell(frame(20e-6 * (true[0] + true[1] * G + true[2] * G**2)))
    assert fit.chosen.label == "polynomial of degree 2"
    for found, error, value in zip(
        fit.chosen.values["coefficients"], fit.chosen.errors["coefficients"], true, strict=True
    ):
        assert abs(found - value) <= 5 * error


def test_lognormal_is_told_from_proportional() -> None:
    numbers = np.random.default_rng(3).standard_normal(len(TARGETS))
    fit = fit_cell({"target": TARGETS, "measured": TARGETS * np.exp(0.4 * numbers)})
    assert fit.chosen.kind == "lognormal"
    assert abs(fit.chosen.values["sigma"] - 0.4) <= 5 * fit.chosen.errors["sigma"]


def test_what_no_law_describes_becomes_a_table() -> None:
    mean = TARGETS + 2e-6 * np.sin(TARGETS * 5e5)
    fit = fit_cell(frame(0.1e-6, mean))
    noise: Any = fit.cell.write_noise
    assert (fit.chosen.kind, noise.targets[0], noise.targets[-1]) == ("table", fit.cell.g_min, fit.cell.g_max)
    expected = np.unique(mean.round(15))
    assert np.allclose(sorted(noise.mean[0]), expected, atol=5 * 0.1e-6 / math.sqrt(60))


def test_clamped_measurements_do_not_lower_the_deviation() -> None:
    """Noise of 2 uS around targets of 1 uS is often clamped at zero."""
    fit = fit_cell(frame(2e-6))
    assert fit.chosen.label == "uniform"
    assert abs(fit.chosen.values["sigma"] * 19e-6 - 2e-6) <= 5 * fit.chosen.errors["sigma"] * 19e-6


def aged(law: str) -> dict[str, Any]:
    rng, rows = np.random.default_rng(5), []
    for cell in range(30):
        rate = rng.standard_normal()
        for target in (2e-6, 5e-6, 9e-6):
            written = target * (1 + 0.05 * rng.standard_normal())
            for t in (10.0, 100.0, 1000.0):
                left = (
                    (t / 10) ** -(0.06 + 0.01 * rate)
                    if law == "power_law"
                    else math.exp(-t / (2000 * math.exp(0.1 * rate)))
                )
                rows.append((cell, target, t, written * left))
    return dict(zip(("cell", "target", "time", "measured"), map(list, zip(*rows, strict=True)), strict=True))


def test_drift_and_retention_are_told_apart() -> None:
    power, charge = fit_cell(aged("power_law")), fit_cell(aged("exponential"))
    assert power.drift is not None
    assert power.drift.kind == "power_law"
    assert abs(power.drift.values["nu"] - 0.06) <= 5 * 0.01 / math.sqrt(30)
    assert charge.drift is not None
    assert charge.drift.kind == "exponential"
    assert charge.drift.values["tau"] == pytest.approx(2000, rel=5 * 0.1 / math.sqrt(30))
    assert charge.cell.drift.kind == "exponential"  # type: ignore[attr-defined]


@pytest.mark.parametrize("wears", [True, False])
def test_endurance_is_where_the_window_is_half(wears: bool) -> None:
    rng, rows = np.random.default_rng(6), []
    for cycle in (1, 10, 100, 1000):
        window = 10e-6 / (1 + (cycle / 300 if wears else 0))
        rows += [
            (cycle, t, (1e-6 if t == 1e-6 else 1e-6 + window) + 1e-8 * rng.standard_normal()) for t in (1e-6, 11e-6) * 8
        ]
    fit = fit_cell(dict(zip(("cycle", "target", "measured"), map(list, zip(*rows, strict=True)), strict=True)))
    assert fit.endurance == (1000.0, wears)


TABLE = [f"{t};{t + d}" for t in (1.0, 2.5, 5.0) for d in (-0.1, 0.05, 0.1, -0.06)]


def written(tmp_path: Path, header: str, rows: list[str], mark: bytes = b"") -> str:
    file = tmp_path / "cells.csv"
    file.write_bytes(mark + "\n".join([header, *rows, ""]).encode())
    return str(file)


@pytest.mark.parametrize(
    ("header", "change"),
    [
        ("target [uS];measured [uS]", lambda r: r),
        ("Target (uS) ; Measured (uS)", lambda r: r.replace(".", ",")),
        ("g_target_uS;g_measured_uS", lambda r: r),
        ("target / uS;conductance / uS", lambda r: r),
        ("target;measured", lambda r: ";".join(f"{v} uS" for v in r.split(";"))),
        ("target (kohm);measured (kohm)", lambda r: ";".join(f"{1e3 / float(v):.9f}" for v in r.split(";"))),
        (
            "target [mS],measured [nS]",
            lambda r: ",".join(f"{float(v) * f:.9g}" for v, f in zip(r.split(";"), (1e-3, 1e3), strict=True)),
        ),
        ("target [uS]\tmeasured [uS]\tnote", lambda r: r.replace(";", "\t") + "\tok"),
    ],
)
def test_tables_are_read_in_any_unit(tmp_path: Path, header: str, change: Any) -> None:
    table = read_measurements(written(tmp_path, header, [change(row) for row in TABLE], b"\xef\xbb\xbf"))
    assert table.target[:4] == pytest.approx([1e-6] * 4, rel=1e-6)
    assert table.measured[:2] == pytest.approx([0.9e-6, 1.05e-6], rel=1e-6)


def test_missing_values_are_counted(tmp_path: Path) -> None:
    table = read_measurements(written(tmp_path, "target [uS];measured [uS]", [*TABLE, "1;", ";2", "n/a;3", "1;nan"]))
    assert (len(table.target), table.left_out) == (12, 4)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("target;measured", TABLE, "target, row 2: '1.0' has no unit; write the unit in the name of the column"),
        ("target [uS];value", TABLE, "has no column 'measured'"),
        ("target [uS];target [nS];measured [uS]", ["1;1;1"] * 12, "are both target; rename one of them"),
        ("target [V];measured [uS]", TABLE, "target: has the unit 'V'; write it in S or ohm"),
        ("target [uS];measured [uS]", [*TABLE, "1;x"], "measured, row 14: 'x' is not a number"),
        ("target [uS];measured [uS]", [*TABLE, "1;inf"], "'inf' is not finite"),
        ("target [uS];measured [uS]", [*TABLE, "1;2;3"], "row 14 has 3 values for 2 columns"),
        ("target [uS];measured [uS]", [*TABLE, "-1;2"], "target: is negative in row 14"),
        ("target [uS];measured [uS]", TABLE[:3], "has 3 complete measurements, at least 10 are needed"),
        ("target [uS];measured [uS]", [], "has no measurements"),
        (
            "target [uS];measured [uS]",
            ["5;5.1"] * 12,
            "all targets are 5 uS, so the cell has no range; measure two or more",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(
    tmp_path: Path, header: str, rows: list[str], message: str
) -> None:
    with pytest.raises(of.BadInput) as caught:
        fit_cell(written(tmp_path, header, rows))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_cell_file_is_the_cell(tmp_path: Path) -> None:
    fit = fit_cell(frame(0.1e-6, TARGETS + 2e-6 * np.sin(TARGETS * 5e5)))
    file = tmp_path / "cell.toml"
    file.write_text(fit.toml())
    content = tomllib.loads(fit.toml())["cell"]
    assert content["write_noise"]["std"]["kind"] == "derived"
    loaded: Any = load(Cell, str(file))
    assert loaded.write_noise.std[0] == pytest.approx(fit.cell.write_noise.std[0], rel=1e-9)  # type: ignore[attr-defined]
    assert (loaded.g_min, loaded.g_max) == pytest.approx((fit.cell.g_min, fit.cell.g_max), rel=1e-9)
