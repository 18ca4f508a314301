"""Limits agree with sweeps, follow the loss, and survive the end of the process that searches them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ohmformer as of
from ohmformer.errors import BadInput
from ohmformer.study.read_study import accuracy_half, cost_half, make_study, make_whole
from ohmformer.study.requirements.loss import loss_of
from ohmformer.study.requirements.software import checked_bound, software_accuracy
from ohmformer.study.results.requirements import Requirement
from ohmformer.study.results.spec import DOCUMENTS
from ohmformer.study.run import run_study
from ohmformer.study.use.hours import in_use
from tests.study.processes import ROOT, wait_until
from tests.study.requirements.build import (
    FURTHER,
    IN_USE,
    KILLED_STEP,
    PAIRS,
    document,
    formula,
    loss_at,
    request,
    searched,
)
from tests.study.small import LOG
from tests.study.small import document as small


def swept(loss: str, name: str, study: dict[str, Any], **options: Any) -> tuple[float, float | None]:
    """Limit and first certain failure, by evaluating every value of the grid."""
    asked = request(loss, quantities=[name], study=study, **options)
    software = software_accuracy(asked.settings)
    search = asked.search(asked.quantities[0], checked_bound(loss, asked.settings, software))
    values = [search.grid.value(harm) for harm in range(search.grid.mildest, search.grid.harshest + 1)]
    losses = [(value, loss_of(formula(search.at(value).settings).accuracy, software)) for value in values]
    holding = [value for value, measured in losses if search.bound.holds(measured)]
    return holding[-1], next((value for value, measured in losses if not search.bound.may_hold(measured)), None)


def mild(*more: tuple[str, Any], **changes: Any) -> dict[str, Any]:
    """Little write noise, so that all quantities have limits."""
    gamma = "attention.array.cell.write_noise.gamma"
    return document(hardware={"base": "clipformer_tcad_2024", gamma: 0.05, **dict(more)}, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["2 %", "5 %", "15 %"])
@pytest.mark.parametrize("name", ["write_noise", "read_noise"])
def test_limits_agree_with_a_sweep_of_all_values(tmp_path: Path, loss: str, name: str) -> None:
    found = searched(tmp_path, loss, quantities=[name], study=mild()).requirements[0]
    assert (found.limit, found.fails_from) == swept(loss, name, mild())
    assert found.verdict == "limit"
    assert found.evaluations < 30
    assert not found.notes


AGED = ("attention.array.age", "100 s")
VERIFIED = ("attention.array.write_verify", {"writes": 5, "tolerance": "5 %"})


@pytest.mark.parametrize(
    ("name", "more"),
    [("drift", [AGED]), ("retention", [AGED]), ("verify_tolerance", [VERIFIED]), ("levels", [])],
)
@pytest.mark.slow
def test_further_quantities_agree_with_a_sweep(tmp_path: Path, name: str, more: list[tuple[str, Any]]) -> None:
    study = mild(*more, seed=FURTHER)
    fine = mild(("projection.array.bits_per_cell", 4), ("attention.array.bits_per_cell", 4), *more, seed=FURTHER)
    found = searched(tmp_path, "8 %", quantities=[name], study=fine if name != "levels" else study).requirements[0]
    assert (found.limit, found.fails_from) == swept("8 %", name, fine if name != "levels" else study)
    assert found.verdict == "limit"
    assert found.evaluations < 40


def test_endurance_agrees_with_a_sweep(tmp_path: Path) -> None:
    """Every value of the grid, with the writes that the cost half counts for it."""
    study = document(**IN_USE, seed=FURTHER)
    found = searched(tmp_path, "12 %", quantities=["endurance"], study=study, step=0.5).requirements[0]
    assert (found.limit, found.fails_from) == swept("12 %", "endurance", study, step=0.5)
    assert (found.verdict, found.unit) == ("limit", "pulses")
    at = found.parameters["attention.key"]
    assert at["pulses"] == 2 * at["writes"] == 2 * 100 * 3600 * 20, "two pulses for each write"
    assert at["stuck"] == pytest.approx(1 - math.exp(-((at["pulses"] / at["endurance"]) ** 1.5)))


def test_the_far_end_decides(tmp_path: Path) -> None:
    found = searched(tmp_path, "5 %").requirements[0]
    assert found.limit is not None
    assert found.fails_from is not None
    losses = {point.value: point.loss for point in found.points}
    assert losses[found.limit].far <= 0.05 < losses[found.fails_from].near
    assert loss_at(found.limit, 0) < 0.05 < loss_at(found.fails_from, 0)
    beyond = min(value for value in losses if value is not None and value > found.limit)
    assert losses[beyond].far > 0.05


def test_limits_rise_with_the_loss(tmp_path: Path) -> None:
    limits = [searched(tmp_path, loss).requirements[0].limit or 0 for loss in ("2 %", "5 %", "10 %", "20 %")]
    assert limits == sorted(set(limits))


def test_parameters_at_the_limit_give_the_limit(tmp_path: Path) -> None:
    found = searched(tmp_path, "5 %").requirements[0]
    at = found.parameters["attention.key"]
    assert at["kind"] == "sqrt_range"
    assert at["gamma"] * at["sigma"] * math.sqrt(0.5) == pytest.approx(found.limit)


def test_the_same_noise_in_arrays_that_are_not_searched_is_named_as_a_cause(tmp_path: Path) -> None:
    """It used to say that no other noise of cells acts, and that codes or converters cause the loss."""
    strong = document(hardware={"base": "clipformer_tcad_2024", "attention.array.cell.write_noise.gamma": 3.0})
    (found,) = searched(tmp_path, quantities=["write_noise"], on="attention.value", study=strong).requirements
    (note,) = found.notes
    assert found.verdict == "never"
    assert note.startswith("Even without write noise of attention.value the loss is 21.5 [")
    assert "; without write noise of projection, attention.key as well it is 0.125 [" in note
    (everywhere,) = searched(tmp_path, "15 %", quantities=["write_noise"], study=strong).requirements
    assert everywhere.verdict == "limit"


def test_a_quantity_that_never_matters(tmp_path: Path) -> None:
    found = searched(tmp_path, "34 %").requirements[0]
    assert (found.verdict, found.limit, found.fails_from) == ("no limit found", found.searched[1], None)


def test_another_noise_is_named_if_it_fails_alone(tmp_path: Path) -> None:
    """The study as it is loses more than 1 % through its write noise."""
    found = searched(tmp_path, "1 %", quantities=["read_noise"]).requirements[0]
    assert (found.verdict, found.limit) == ("never", None)
    (note,) = found.notes
    assert note.startswith("Even without read noise the loss is 5 [")
    assert "without write noise as well it is 0" in note


@pytest.mark.slow
@pytest.mark.parametrize("which", PAIRS)
def test_a_search_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    monkeypatch.setenv(LOG, str(log))
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    for lines in (6,):
        with subprocess.Popen(
            [sys.executable, "-c", f"from tests.study.requirements.build import drive; drive({str(out)!r}, {which!r})"],
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,
        ) as driver:
            assert wait_until(lambda lines=lines: len(log.read_text().splitlines()) >= lines, 60)
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait(60)
    quantities, changes = PAIRS[which]
    asked: dict[str, Any] = {
        "loss": "15 %", "quantities": quantities, "study": document(**changes), "step": KILLED_STEP,
    }  # fmt: skip
    found = searched(out, **asked)
    again = log.read_text().splitlines()
    assert len(again) - len(set(again)) <= 2, "more was computed twice than what was under way"
    log.write_text("")
    assert found == searched(tmp_path / "other", **asked)
    log.write_text("")
    assert found == searched(out, **asked)
    assert log.read_text() == "", "a finished search computed something again"


def test_a_map_falls_from_the_limit_of_one_to_that_of_the_other(tmp_path: Path) -> None:
    found = searched(tmp_path, "5 %", quantities=None, pair=("write_noise", "read_noise"), grid=5)
    assert found.requirements == ()
    assert found.frontier is not None
    rows = found.frontier.rows
    assert [row.value is None for row in rows] == [True, False, False, False, False]
    limits = [row.requirement.limit or 0.0 for row in rows]
    assert limits == sorted(limits, reverse=True)
    alone = searched(tmp_path, "5 %").requirements[0].limit
    assert found.frontier.first.limit == rows[-1].value == alone
    for row in rows[:-1]:
        limit, certain = row.requirement.limit, row.requirement.fails_from
        assert limit is not None
        assert certain is not None
        assert loss_at(row.value or 0.0, limit) < 0.05 < loss_at(row.value or 0.0, certain)


def test_the_document_is_frozen_and_fits_the_schema(tmp_path: Path) -> None:
    found = searched(tmp_path, "5 %", pair=("write_noise", "read_noise"), grid=2)
    assert DOCUMENTS.validate_json(found.model_dump_json(by_alias=True)) == found
    with pytest.raises(ValueError, match="frozen"):
        found.loss = 1.0  # type: ignore[misc]
    assert isinstance(found.requirement("write_noise"), Requirement)


def test_real_evaluations_agree_with_a_sweep(tmp_path: Path) -> None:
    """A tiny model on the simulated hardware, each value set by its path."""
    study = small(
        hardware={"base": "clipformer_tcad_2024", "projection.array.cell.write_noise": {"kind": "none"}},
        trials={"chips": 3},
    )
    found = of.require(study, loss="45 %", quantities=["write_noise"], step=0.5, out=tmp_path, progress=False)
    (limit,) = found.requirements
    gammas = [point.value * math.sqrt(2) / 0.2 for point in limit.points if point.value is not None]
    path = "hardware.attention.array.cell.write_noise.gamma"
    results = run_study(make_study({**study, "sweep": {path: gammas}}), tmp_path / "sweep")
    software = software_accuracy(make_study(study).points[0].settings)
    losses = [loss_of(result.accuracy, software) for result in results]
    assert [point.loss for point in limit.points if point.value is not None] == losses
    holding = [gamma for gamma, loss in zip(gammas, losses, strict=True) if loss.far <= 0.45]
    assert limit.limit == pytest.approx(max(holding) * 0.2 / math.sqrt(2))


SEEN = ("attention.array.cell.endurance", "attention.array.cell.drift")
"""What the searches of the next test change."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "path", "changes"),
    [
        ("endurance", SEEN[0], {**IN_USE, "simulation": {"batch": 5, "hours": 1}}),
        ("retention", SEEN[1], {"simulation": {"batch": 5, "age": "timeline"}}),
        pytest.param(
            *("retention", SEEN[1], {"simulation": {"batch": 5, "age": "timeline_longest"}}), marks=pytest.mark.slow
        ),
    ],
)
def test_real_evaluations_with_time_agree_with_a_sweep(
    tmp_path: Path, name: str, path: str, changes: dict[str, Any]
) -> None:
    """A tiny model, each value written in a file; endurance after hours of use, and retention through a timeline."""
    silent = {f"{role}.array.cell.write_noise": {"kind": "none"} for role in ("projection", "attention")}
    base = changes.get("hardware", {"base": "clipformer_tcad_2024"})
    study = small(**{"trials": {"chips": 3}, **changes, "hardware": {**base, **silent}})
    found = of.require(study, loss="45 %", quantities=[name], step=1.0, on="attention", out=tmp_path, progress=False)
    (limit,) = found.requirements
    assert limit.verdict == "limit"
    values = [point.value for point in limit.points if point.value is not None]
    drifts = [{"kind": "exponential", "tau": f"{value!r} s"} for value in values]
    whole = make_whole({**study, "sweep": {f"hardware.{path}": values if name == "endurance" else drifts}})
    results = run_study(in_use(accuracy_half(whole), cost_half(whole)), tmp_path / "sweep")
    software = software_accuracy(make_study(study).points[0].settings)
    losses = [loss_of(result.accuracy, software) for result in results]
    assert [point.loss for point in limit.points if point.value is not None] == losses
    holding = [value for value, loss in zip(values, losses, strict=True) if loss.far <= 0.45]
    assert limit.limit == min(holding)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "1"}, "loss = '1': has no unit"),
        ({"loss": "100 %"}, "must be above 0 and below 100 %"),
        ({"loss": "80 %"}, "guessing has"),
        ({"quantities": ["read_nois"]}, "did you mean 'read_noise'"),
        ({"quantities": "read_noise"}, "give a list of names"),
        ({"quantities": []}, "quantities is empty"),
        ({"pair": ("write_noise", "write-noise")}, "is named twice"),
        ({"pair": ("write_noise",)}, "give two names"),
        ({"on": "keys"}, "on = 'keys': is not a choice of arrays"),
        ({"step": 0}, "step = 0: must be a number from"),
        ({"step": "5 %"}, "step = '5 %': must be a number from"),
        ({"grid": 1}, "grid = 1: must be a whole number from 2"),
        ({"kinds": {"read_noise": "uniform"}}, "read_noise is not searched"),
        ({"kinds": "uniform"}, "give a table such as"),
        ({"study": document(trials={"chips": 1})}, "one chip says nothing of others"),
        ({"study": document(sweep={"seed": [0, 1]})}, "has 2 points, but limits belong to one"),
        ({"study": {k: v for k, v in document().items() if k != "task"}}, "task: is missing"),
        ({"study": document(hardware={"base": "h100_sxm"})}, "has no memristive arrays"),
        ({"quantities": ["drift"]}, "before drift begins"),
        ({"quantities": ["levels"], "kinds": {"levels": "uniform"}}, "levels has no kinds"),
        ({"quantities": None, "kinds": {"write_noise": "foo"}}, "'foo': is not a kind of write noise"),
        ({"quantities": None, "kinds": {"levels": "uniform"}}, "levels has no kinds"),
        ({"study": 3}, "study"),
    ],
)  # fmt: skip
def test_bad_requests_end_in_one_line(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        searched(tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
