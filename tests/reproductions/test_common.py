"""What the folders of reproductions share: small files are whole, and say what paired differences need."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.errors import BadInput
from ohmformer.study.read_study import read_study
from ohmformer.study.run import run_study
from tests.study import small

FOLDER = Path(__file__).parents[2] / "reproductions"
MODULES = ("small_files", "collecting", "curves")


@dataclass(frozen=True)
class Common:
    """The modules that are shared."""

    small_files: ModuleType
    collecting: ModuleType
    curves: ModuleType


@pytest.fixture(scope="module")
def common() -> Iterator[Common]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield Common(*(importlib.import_module(f"common.{name}") for name in MODULES))
        for name in [name for name in sys.modules if name.split(".")[0] == "common"]:
            sys.modules.pop(name)


@given(st.lists(st.integers(0, 9), min_size=1))
def test_hits_survive_packing(common: Common, tmp_path_factory: pytest.TempPathFactory, hits: list[int]) -> None:
    folder = tmp_path_factory.mktemp("packed")
    accuracy = {"hits": common.small_files.packed(hits)}
    (folder / "x.json").write_text(common.small_files.to_text({"study": "x", "points": [{"accuracy": accuracy}]}))
    assert common.small_files.load("x", folder)["points"][0]["accuracy"]["hits"] == hits


def test_collecting_takes_what_is_stored_of_a_study_that_was_stopped(common: Common, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\n[model]\nsource = "python:tests.study.small:model"\n'
        '[task]\nsource = "python:tests.study.small:task"\n[hardware]\nbase = "clipformer_tcad_2024"\n'
        f'[trials]\nchips = 2\n[simulation]\nbatch = 5\n[sweep]\n"{small.GAMMA}" = [0, 4]\n'
    )
    run_study(read_study(str(file), [f"{small.GAMMA}=[4]"]), tmp_path / "runs", progress=False)
    common.collecting.collect(file, tmp_path / "runs", tmp_path / "results", [])
    found = common.small_files.load("mine", tmp_path / "results")
    (only,) = found["points"]
    assert (found["asked"], only["set"]) == (2, {small.GAMMA: 4})
    accuracy = only["accuracy"]
    assert np.sum(accuracy["hits"]) / 2 / accuracy["samples"] == pytest.approx(accuracy["mean"])
    stored = tmp_path / "results" / "mine.json"
    stored.write_text(stored.read_text().replace('"points": [', '"points": [{"accuracy": {}}, '))
    with pytest.raises(BadInput, match=r"1 points are stored for this code, but .* has 2"):
        common.collecting.collect(file, tmp_path / "runs", tmp_path / "results", [])
    common.collecting.collect(file, tmp_path / "runs", tmp_path / "results", [], fewer=True)
    assert common.small_files.load("mine", tmp_path / "results") == found
    stored.write_text(stored.read_text().replace(f'"{small.GAMMA}": 4', f'"{small.GAMMA}": 0').replace("code", "old"))
    common.collecting.collect(file, tmp_path / "runs", tmp_path / "results", [], add=True)
    both = common.small_files.load("mine", tmp_path / "results")["points"]
    assert [point["set"][small.GAMMA] for point in both] == [0, 4]
    assert ["code" in point for point in both] == [False, True]
    assert both[0]["accuracy"] == both[1]["accuracy"]
    with pytest.raises(BadInput, match=r"holds no results\.sqlite"):
        common.collecting.collect(file, tmp_path, tmp_path / "results", [])
    with pytest.raises(BadInput, match="nothing is stored of"):
        common.collecting.collect(file, tmp_path / "runs", tmp_path / "results", ["seed=1"])


@pytest.mark.slow
def test_small_files_hold_what_a_pass_costs_and_what_was_chosen(common: Common, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\n[model]\nsource = "python:tests.study.small:model"\n'
        '[task]\nsource = "python:tests.study.small:task"\n[hardware]\nbase = "clipformer_tcad_2024"\n'
        f'[trials]\nchips = 2\n[simulation]\nbatch = 5\n[sweep]\n"{small.GAMMA}" = [5]\n'
        '"mitigation.kv" = ["none", { auto = true, cells = 1.0 }]\n'
    )
    run_study(read_study(str(file)), tmp_path / "runs", progress=False)
    common.collecting.collect(file, tmp_path / "runs", tmp_path / "results", [])
    plain, chosen = common.small_files.stored_points("mine", tmp_path / "results")
    choice = chosen.accuracy.chosen
    assert plain.accuracy.chosen is None
    assert [candidate.name for candidate in choice.comparison.candidates if candidate.chosen] == [choice.recipe]
    of_front = next(candidate.cost for candidate in choice.comparison.candidates if candidate.chosen)
    assert (chosen.cost.latency_s, chosen.cost.energy_J) == pytest.approx((of_front.latency, of_front.energy))
    assert chosen.cost.latency_s >= plain.cost.latency_s > 0
    assert plain.cost.wear == chosen.cost.wear == 2  # a write is a RESET and a SET pulse, once in a pass


def test_the_software_model_stands_beside_a_point_of_any_size(common: Common) -> None:
    hits = [1.0, 0.0, 1.0, 1.0]
    accuracy = {
        "metric": "top1", "level": "noise", "software": 0.75, "mean": 0.5, "ci95": [0.1, 0.9], "chips": [0.5, 0.5],
        "samples": 4, "hits": [2, 0, 1, 1],
    }  # fmt: skip
    noise = {"kind": "sqrt_range", "gamma": 3.0, "sigma": 0.2}
    row = {"set": {}, "accuracy": accuracy, "write_noise": {"projection": None, "key": noise, "value": noise}}
    point = common.small_files.Point.read(row)
    found = common.curves.Curves("x", "x", {"m": {3.0: point}}, 1, hits)
    assert found.software_point.accuracy.score_sums == (2, 0, 2, 2)
    assert common.curves.paired(point, found.software_point, 3.0).mean == pytest.approx(-0.25)
    assert common.curves.Curves("x", "x", {"m": {3.0: point}}, 1).software_point is None
