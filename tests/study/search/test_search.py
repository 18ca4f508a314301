"""A search: its front is that of all designs, its trials come again, and a killed search goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

from ohmformer.errors import BadInput
from ohmformer.study.cost import price
from ohmformer.study.results.search import SearchResults
from ohmformer.study.results.spec import PointResult
from ohmformer.study.search.search import search
from ohmformer.study.spec import Settings
from tests.cli.drivers import stopped_if_it_fails
from tests.study.search import build
from tests.study.search.build import GAMMAS, formula, found, request
from tests.study.small import LOG

OBJECTIVES = ("loss", "energy", "area")


def by_brute_force() -> dict[tuple[Any, ...], tuple[float, ...]]:
    """Design -> loss, energy and area, each priced and computed by itself."""
    asked, values = request(), {}
    for size, slices, gamma in product([32, 64, 128], [1, 2], GAMMAS):
        _, whole = asked.settings_of((("size", size), ("slices", slices), ("gamma", gamma)))
        cost = price(whole.costs())
        values[size, slices, gamma] = (build.wrong(whole.accuracy()) / build.SAMPLES, cost.energy_J, cost.area_m2)
    return values


def best_of(values: dict[tuple[Any, ...], tuple[float, ...]]) -> set[tuple[Any, ...]]:
    """Those that no other one beats, by definition; costs of the two ways to price agree up to rounding."""
    rounded = {design: tuple(float(f"{value:.9e}") for value in each) for design, each in values.items()}
    return {
        design
        for design, mine in rounded.items()
        if not any(all(a <= b for a, b in zip(its, mine, strict=True)) and its != mine for its in rounded.values())
    }


def front_of(results: SearchResults) -> set[tuple[Any, ...]]:
    return {tuple(design.choices.values()) for design in results.front}


@pytest.fixture(scope="module")
def brute_force() -> dict[tuple[Any, ...], tuple[float, ...]]:
    return by_brute_force()


def test_the_front_is_that_of_all_designs(brute_force: Any, tmp_path: Path) -> None:
    results = found(tmp_path)
    assert results.size == len(results.designs) == 24
    assert {tuple(design.choices.values()) for design in results.designs} == set(brute_force)
    assert front_of(results) == best_of(brute_force)
    assert 0 < results.measured < 24
    for design in results.designs:
        if design.accuracy is not None:
            expected = brute_force[tuple(design.choices.values())]
            assert [design.values[name] for name in OBJECTIVES] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_the_front_of_some_designs_is_that_of_these_designs(sampler: str, brute_force: Any, tmp_path: Path) -> None:
    results = found(tmp_path, search={"trials": 14, "sampler": sampler, "batch": 2})
    tried = {tuple(design.choices.values()) for design in results.designs}
    assert len(tried) == 14
    assert front_of(results) == best_of({design: brute_force[design] for design in tried})


def test_constraints_of_both_halves_hold(brute_force: Any, tmp_path: Path) -> None:
    areas = sorted(values[2] for values in brute_force.values())
    bound = areas[12]
    limits = [f"area <= {bound * 1e6} mm2", "loss <= 4 %"]
    results = found(tmp_path, search={"constraints": limits})
    allowed = {design: each for design, each in brute_force.items() if each[2] <= bound and each[0] <= 0.04}
    assert front_of(results) == best_of(allowed)
    outside = [design for design in results.designs if design.state == "infeasible"]
    assert outside
    assert all("area <= " in design.why or "loss <= 4 %" in design.why for design in outside)
    assert all(design.accuracy is None for design in outside if "area <= " in design.why)
    assert not any("by their mean" in note for note in results.notes)


def test_bounds_that_only_means_keep_are_told(tmp_path: Path) -> None:
    def vague(settings: Settings) -> PointResult:
        plain = formula(settings).model_dump(by_alias=True)
        slices = settings.hardware.attention.key.array.bits_per_cell  # type: ignore[attr-defined]
        mean, half = plain["accuracy"]["mean"], 0.06 if slices == 1 else 0.0
        plain["accuracy"]["ci95"] = (mean - half, min(1.0, mean + half))
        return PointResult.model_validate(plain)

    results = found(tmp_path, search={"constraints": ["loss <= 4 %"]}, evaluate=vague)
    beyond = [each for each in results.front if each.choices["slices"] == 1]
    assert 0 < len(beyond) < len(results.front)
    count = f"{len(beyond)} of {len(results.front)} designs of the front keep it by their mean"
    assert [note for note in results.notes if note.startswith(f"loss <= 4 %: {count}")]


def plain(results: SearchResults) -> Any:
    return json.loads(results.model_dump_json(by_alias=True))


@pytest.mark.slow
def test_a_seeded_search_gives_the_same_trials_again_for_any_number_of_workers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"search": {"trials": 16, "batch": 4}}
    first = plain(found(tmp_path / "a", **options))
    assert plain(found(tmp_path / "b", **options)) == first
    assert plain(found(tmp_path / "c", workers=2, **options)) == first
    other = plain(found(tmp_path / "d", search={"trials": 16, "batch": 4, "seed": 7}))
    assert [each["choices"] for each in other["designs"]] != [each["choices"] for each in first["designs"]]


@pytest.mark.slow
def test_more_trials_go_on_and_nothing_is_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(LOG, str(log))
    few = found(tmp_path / "runs", search={"trials": 8})
    more = found(tmp_path / "runs", search={"trials": 24})
    assert [each.choices for each in more.designs[:8]] == [each.choices for each in few.designs]
    assert len(log.read_text().splitlines()) == more.measured
    other = found(tmp_path / "runs", search={"trials": 24, "objectives": ["loss", "latency"]})
    assert other.key != more.key
    assert len(log.read_text().splitlines()) < more.measured + other.measured


@pytest.mark.slow
def test_a_killed_search_gives_what_an_undisturbed_one_gives(tmp_path: Path) -> None:
    undisturbed = plain(found(tmp_path / "undisturbed", **build.KILLED))
    folder = tmp_path / "killed"
    code = "import sys; from tests.study.search.build import drive; drive(sys.argv[1])"
    for wait in (0.3, 0.9, 1.7):
        with stopped_if_it_fails(
            subprocess.Popen([sys.executable, "-c", code, str(folder)], text=True, start_new_session=True)
        ) as driver:
            journal, deadline = folder / "search.journal", time.monotonic() + 120
            while not journal.exists() and driver.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(wait)
            os.killpg(driver.pid, signal.SIGKILL) if driver.poll() is None else None
    assert plain(found(folder, **build.KILLED)) == undisturbed


def test_designs_that_are_named_come_first(tmp_path: Path) -> None:
    first = [{"size": 128, "slices": 1, "gamma": 4.0}, {"size": 32, "slices": 2, "gamma": 0.0}]
    results = found(tmp_path, search={"trials": 4, "first": first})
    assert [each.choices for each in results.designs[:2]] == first


def test_choices_with_conditions_and_ranges(tmp_path: Path) -> None:
    choose = [
        {"name": "machine", "options": {"nvm": {}, "sram": {"hardware.base": "xformer_tvlsi_2023"}}},
        {"name": "gamma", "path": build.GAMMA, "low": 0.5, "high": 4.0, "when": {"machine": "nvm"}},
        {"name": "rate", "path": "cost.rate", "low": 10, "high": 1000, "log": True, "unit": "Hz"},
    ]
    results = found(tmp_path, choose=choose, search={"trials": 12, "objectives": ["latency", "lifetime"]})
    assert results.size is None
    assert results.measured == 0
    for design in results.designs:
        assert ("gamma" in design.choices) == (design.choices["machine"] == "nvm")
        assert isinstance(design.choices["rate"], int)


def test_designs_without_a_price_are_told_and_the_others_searched(tmp_path: Path) -> None:
    choose = [{"path": "hardware.base", "values": ["generic_amplitude", "clipformer_tcad_2024", "nvm_ideal"]}]
    results = found(tmp_path, choose=choose, search={"objectives": ["energy"]})
    states = {design.choices["hardware.base"]: design.state for design in results.designs}
    assert states["generic_amplitude"] == "impossible"
    assert sorted(states.values()) == ["dominated", "front", "impossible"]
    with pytest.raises(BadInput, match="none of 1 designs is possible"):
        found(tmp_path, choose=[{"path": "hardware.base", "values": ["generic_amplitude"]}])


def test_a_torn_record_is_cut_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"search": {"trials": 4, "objectives": ["energy", "area"]}}
    before = plain(found(tmp_path, **options))
    journal = tmp_path / "search.journal"
    with journal.open("a") as file:
        file.write('{"op_code": 4, "tri')
    assert plain(found(tmp_path, **options)) == before
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(["nonsense", *lines]) + "\n")
    with pytest.raises(BadInput, match="is damaged or was not written by this program"):
        found(tmp_path, **options)


def test_python_takes_a_mapping_and_refuses_what_is_no_study(tmp_path: Path) -> None:
    study = build.document(search={"trials": 3, "objectives": ["energy", "area"]})
    results = search(study, trials=5, out=tmp_path, progress=False)
    assert len(results.designs) == 5
    with pytest.raises(BadInput, match="study is an int"):
        search(3)  # type: ignore[arg-type]


def test_a_finished_search_in_a_folder_that_may_only_be_read_is_shown(foreign: Path) -> None:
    before = found(foreign, search={"trials": 6})
    for path in (*foreign.iterdir(), foreign):
        path.chmod(0o500 if path.is_dir() else 0o400)
    assert found(foreign, search={"trials": 6}) == before
    with pytest.raises(BadInput, match=r"search.journal: may only be read, and 3 of 9 designs are missing; choose"):
        found(foreign, search={"trials": 9})
