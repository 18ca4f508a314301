"""Polynomials in pieces, tables, and both over time: by hand, in files and through the chain of a study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ohmformer.array.crossbar import program
from ohmformer.array.folded import fold
from ohmformer.device import noise
from ohmformer.device.interpolation import least_value, linear, row_at
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.report.json_schema import file_schema
from ohmformer.schema import load, replace
from ohmformer.study.sweep import parse_set
from tests.build import PIECES, TABLE, array, cell

HOUR = 3600.0
AGING: dict[str, Any] = {
    "kind": "piecewise_polynomial", "g_ref": 1e-5, "times": [1.0, HOUR],
    "coefficients": [[1e-7, 2e-7], [3e-7, 2e-7, 4e-7]],
}  # fmt: skip
AGING_TABLE: dict[str, Any] = {
    "kind": "table", "targets": [0.0, 1e-5], "times": [1.0, HOUR],
    "std": [[1e-7, 2e-7], [3e-7, 4e-7]], "mean": [[0.0, 1e-5], [1e-7, 9e-6]],
}  # fmt: skip


def std(g: list[float], device: Cell) -> list[float]:
    found: list[float] = noise.write_std(torch.tensor(g, dtype=torch.float64), device).tolist()
    return found


def test_each_piece_has_its_own_polynomial_and_a_border_belongs_to_the_upper_one() -> None:
    """By hand, at 2, 3 and 9 uS of cells with half of g_ref: borders and deviations are halved, too."""
    device = cell(g_max=1e-5, write_noise=PIECES)
    x, y, z = 0.1, 0.15, 0.45
    by_hand = [2e-7 + 4e-6 * x, 6e-7 + 1e-6 * y**2 - 2e-6 * y**3 + 1.5e-6 * y**4, 1.2e-6 - 8e-7 * z]
    assert std([1e-6, 1.5e-6, 4.5e-6], device) == pytest.approx([0.5 * value for value in by_hand], rel=1e-12)
    assert std([1.5e-6 * (1 - 1e-12)], device)[0] == pytest.approx(0.5 * (2e-7 + 4e-6 * y), rel=1e-9)


def test_a_table_is_linear_between_its_targets() -> None:
    device = cell(write_noise=TABLE)
    g = torch.tensor([0.0, 1.25e-6, 6e-6, 8.5e-6], dtype=torch.float64)
    assert std(g.tolist(), device) == pytest.approx([3e-7, 5e-7, 4e-7, 6e-7], rel=1e-12)
    assert noise.write_mean(g, device).tolist() == pytest.approx([4e-7, 1.3e-6, 6.3e-6, 8.5e-6], rel=1e-12)
    assert not noise.silent(cell(write_noise={**TABLE, "std": [0.0] * 4})), "its means are not its targets"
    assert noise.silent(cell(write_noise={**TABLE, "std": [0.0] * 4, "mean": []}))


def test_parameters_between_two_times_are_interpolated_in_the_logarithm_of_time() -> None:
    half = math.sqrt(HOUR)
    for age, expected in ((0.0, [1e-7, 3e-7]), (1.0, [1e-7, 3e-7]), (half, [2e-7, 6e-7]), (HOUR, [3e-7, 9e-7])):
        assert std([0.0, 1e-5], cell(g_min=0.0, write_noise=AGING).at_age(age)) == pytest.approx(expected, rel=1e-9)
    table = cell(g_min=0.0, write_noise=AGING_TABLE).at_age(half)
    assert std([0.0, 1e-5], table) == pytest.approx([2e-7, 3e-7], rel=1e-9)
    means = noise.write_mean(torch.tensor([0.0, 1e-5], dtype=torch.float64), table)
    assert means.tolist() == pytest.approx([5e-8, 9.5e-6], rel=1e-9)


def test_an_array_has_the_noise_of_its_age() -> None:
    """Deviations of 160,000 cells lie within 5 standard errors: a false alarm once in 1.7 million comparisons."""
    w = torch.ones(400, 400, dtype=torch.float64)
    for age in (0.0, 60.0, HOUR):
        hardware = array(rows=512, columns=512, bits=2, age=age, cell=cell(g_min=0.0, write_noise=AGING))
        held = fold(program(w, hardware, stream=1)).values * 3 * hardware.step
        top, bottom = std([1e-5, 0.0], hardware.aged_cell)
        expected = math.hypot(top, bottom * math.sqrt((1 - 1 / math.pi) / 2))  # the unused half is censored at 0
        assert float(held.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * held.numel()))


def test_ages_without_data_and_verified_writes_of_aged_cells_are_refused() -> None:
    for kind in (AGING, AGING_TABLE):
        device = cell(g_min=0.0, write_noise=kind)
        with pytest.raises(BadInput, match=r"cells are read 10 ks after the write, but write_noise\.times ends"):
            replace(array(cell=device), "age", 1e4)
        verify = {"writes": 5, "tolerance": 0.1}
        assert array(cell=device, write_verify=verify).write_verify is not None
        with pytest.raises(BadInput, match="write_verify: writes are read back at once"):
            replace(array(cell=device, write_verify=verify), "age", 60.0)


def test_the_noise_is_scaled_as_a_whole_and_the_means_stay() -> None:
    g = [1e-6, 5e-6, 9e-6]
    for kind in (PIECES, TABLE):
        device = cell(write_noise=kind)
        double = noise.scaled(device, 2.0)
        assert std(g, double) == pytest.approx([2 * value for value in std(g, device)], rel=1e-12)
    means = noise.write_mean(torch.tensor(g), noise.scaled(cell(write_noise=TABLE), 0.0))
    assert torch.equal(means, noise.write_mean(torch.tensor(g), cell(write_noise=TABLE)))


FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        PIECES,
        {"coefficients": [[1e-7], [-1e-7], [1e-7]]},
        r"falls to -1e-07 S at G = 1.5 uS.*never below zero; correct",
    ),
    (PIECES, {"borders": [], "coefficients": [1e-7, -1.2e-6, 2e-6]}, r"falls to .* S at G = 3 uS"),
    (AGING, {"coefficients": [[1e-7], [1e-7, -3e-7]]}, r"falls to -2e-07 S at G = 10 uS 3.6 ks after the write"),
    (PIECES, {"borders": [9e-6, 3e-6]}, "borders must rise; sort them"),
    (PIECES, {"borders": [3e-6, 3e-5]}, "borders: the last one is not below g_ref"),
    (PIECES, {"borders": [3e-6]}, "coefficients has 3 lists; give 2, one for each piece at each time"),
    (PIECES, {"coefficients": [[1e-7], [], [1e-7]]}, "coefficients has an empty list"),
    (AGING, {"times": [HOUR, 1.0]}, "times must rise"),
    (TABLE, {"targets": [0.0, 2.5e-6, 2.5e-6, 1e-5]}, "targets must rise"),
    (TABLE, {"targets": [2e-7, 2.5e-6, 6e-6, 1e-5]}, "do not cover the range of the cell, 100 nS to 10 uS"),
    (TABLE, {"targets": [0.0, 2.5e-6, 6e-6, 9e-6]}, "do not cover the range"),
    (TABLE, {"std": [1e-7, 1e-7]}, "std has 2 values for 4 targets; give one for each"),
    (TABLE, {"std": [1e-7, -1e-7, 0.0, 0.0]}, "std has -100 nS: must be 0 or more"),
    (TABLE, {"times": [1.0, 2.0]}, "std has 1 lists for 2 times"),
    (TABLE, {"targets": [0.0], "std": [0.0], "mean": []}, "at least 2"),
]


@pytest.mark.parametrize(("kind", "changed", "message"), FAULTS)
def test_what_cannot_be_is_refused_in_one_line(kind: Any, changed: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        Cell(g_min=1e-7, g_max=1e-5, write_noise={**kind, **changed})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_mean_above_the_ceiling_is_refused() -> None:
    with pytest.raises(BadInput, match="mean is above g_ceiling"):
        Cell(g_min=1e-7, g_max=1e-5, g_ceiling=1.02e-5, write_noise=TABLE)  # type: ignore[arg-type]


CELL = """
[cell]
g_min = "0.1 uS"
g_max = "10 uS"
write_noise.kind = "table"
write_noise.targets = ["0 uS", "2.5 uS", "6 uS", "11 uS"]
write_noise.std = { value = ["0.3 uS", "0.7 uS", "0.4 uS", "0.8 uS"], source = "mine", where = "sheet 2" }
write_noise.mean = [["0.4 uS", "2.2 uS", "6.3 uS", "10.7 uS"]]
"""


def test_files_hold_lists_with_units_and_sources(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(CELL)
    found = load(Cell, str(file))
    assert found.write_noise == cell(write_noise=TABLE).write_noise
    assert dict(found.write_noise.provenance)["std"].where == "sheet 2"
    file.write_text(CELL.replace('"0.7 uS"', "0.7"))
    with pytest.raises(BadInput, match=r"cell\.write_noise\.std.*has no unit"):
        load(Cell, str(file))
    options = file_schema("cell")["$defs"]["MeasuredTable"]["properties"]["std"]["anyOf"][0]["anyOf"]
    assert options[0]["items"]["type"] == options[1]["items"]["items"]["type"] == "string"


def test_a_list_can_be_set_and_swept() -> None:
    path, value = parse_set('cell.write_noise.std=["0 uS", "0 uS", "0 uS", "1 uS"]')
    changed = replace(array(cell=cell(write_noise=TABLE)), path, value, in_file=True)
    assert changed.cell.write_noise.std == ((0.0, 0.0, 0.0, 1e-6),)  # type: ignore[attr-defined]


def test_interpolation() -> None:
    assert row_at(1.0, (1.0, 100.0), ((1.0,), (3.0, 4.0))) == (1.0, 0.0)
    assert row_at(10.0, (1.0, 100.0), ((1.0,), (3.0, 4.0))) == pytest.approx((2.0, 2.0))
    assert least_value((1.0, -4.0, 4.0), 0.0, 1.0) == pytest.approx((0.0, 0.5))
    assert least_value((2.0,), 0.0, 1.0) == (2.0, 0.0)
    assert least_value((1.0, 0.0, 0.0), 0.0, 1.0)[0] == 1.0
    x = torch.tensor([-1.0, 0.5, 1.0, 3.0])
    assert linear(x, (0.0, 1.0, 2.0), (0.0, 1.0, 3.0)).tolist() == [-1.0, 0.5, 1.0, 5.0]
