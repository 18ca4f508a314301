"""Both halves of a study in one document."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ohmformer.dataflow.simulate import simulate
from ohmformer.mitigation.spec import KVClip
from ohmformer.report.cost_table import costs_of_points
from ohmformer.schema import replace
from ohmformer.study.cost import make_costs, price, study_costs
from ohmformer.study.default_inputs import traced
from ohmformer.study.join_cost import costs_alone, has_accuracy, with_costs, without_choice
from ohmformer.study.read_study import make_study
from ohmformer.study.results.costs import CostResult
from ohmformer.study.results.document import study_results, to_json
from ohmformer.study.results.priced_choice import rules_with_choice
from ohmformer.study.results.spec import Chosen, StudyResults
from ohmformer.study.run import run_study, study_keys
from ohmformer.study.spec import CostSettings
from ohmformer.study.store.store import Store
from tests.study.small import GAMMA, document

ADC8 = {"base": "clipformer_tcad_2024_adc8", "chip.network_max_load": 1000}
"""Its network is never overloaded, so that no note speaks of it."""
FEW = {"trials": {"chips": 1}, "simulation": {"level": "noise"}, "task": {"source": "python:tests.study.small:task"}}

CORES = (
    "power and area of cores and tiles (without their arrays) are those published for arrays of 128 x 128, 8 in a core "
    "and 8 cores in a tile, while there are 64 x 64 (projection, attention): see chip.priced_with"
)
"""The note on the chip of `clipformer_tcad_2024`, whose cores are those of PUMA."""


def both(out: Path, **changes: Any) -> StudyResults:
    content = document(**{"hardware": ADC8, **FEW, **changes})
    study = make_study(content)
    found = study_results(study, study_keys(study), run_study(study, out))
    return with_costs(found, make_costs(content))


def shown(found: StudyResults) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(costs_of_points(found))
    return captured.get()


def test_every_point_has_what_each_half_says_alone(tmp_path: Path) -> None:
    """Also where only one of them reads a swept value, which is then computed once by the other."""
    sweep = {"dataflow.block": [1, 5], GAMMA: [0, 4]}
    changes = {"dataflow": {"kind": "sequence_blocking", "block": 2}, "sweep": sweep}
    found = both(tmp_path, **changes)
    costs = make_costs(document(hardware=ADC8, **FEW, **changes))
    assert [point.cost for point in found.points] == [point.cost for point in study_costs(costs).points]
    assert [point.set for point in found.points] == [point.set for point in costs.points]
    assert found.points[0].accuracy == found.points[2].accuracy
    assert found.points[0].cost.latency_s != found.points[2].cost.latency_s
    with Store(tmp_path / "results.sqlite") as store:
        assert len(store) == 2
    assert found.cost_notes == (CORES,)
    json.loads(to_json(found))


def test_what_has_no_price_keeps_its_accuracy_and_says_why(tmp_path: Path) -> None:
    found = both(tmp_path, hardware={}, sweep={"hardware.base": ["clipformer_tcad_2024_adc8", "generic_amplitude"]})
    priced, unpriced = found.points
    assert priced.cost.latency_s > 0
    assert unpriced.cost is None
    assert unpriced.accuracy.software == 1.0
    network, cores, note = found.cost_notes
    assert network.startswith("the network would carry")
    assert cores == CORES
    assert note.startswith("no cost at 1 of 2 points: hardware.chip: is missing for 'Generic crossbars")
    assert "all points" in shown(found)
    assert "no cost at 1 of 2" in shown(found)
    alone = both(tmp_path, hardware={"base": "generic_amplitude"})
    assert shown(alone).startswith("no cost: hardware.chip: is missing")


def test_a_chosen_clip_is_priced_at_its_point(tmp_path: Path) -> None:
    changes = {"mitigation": {"clip": "calibrated"}, "sweep": {GAMMA: [0, 20]}}
    found = both(tmp_path, **changes)
    chosen = [point.accuracy.chosen.clips for point in found.points]
    assert any(chosen), "nothing was chosen, so that nothing is tested"
    for point, clips in zip(found.points, chosen, strict=True):
        rules = {name: {"clip": clip} for name, clip in clips.items()}
        fixed = {"rules": rules, "sweep": {GAMMA: point.set[GAMMA]}}
        (own,) = make_costs(document(hardware=ADC8, **FEW, **fixed)).points
        assert point.cost == price(own.settings)
    assert found.cost_notes == (CORES,)


def test_a_chosen_clip_keeps_the_rule_of_its_site_and_module() -> None:
    """A rule that names no operand was once lost from the price of those whose clip was chosen."""
    rule = {
        "array": {"base": "clipformer_2024", "rows": 64},
        "write": "right",
        "scale": "column",
        "on": "attention.value",
    }
    clip = {"alpha": 2.0, "beta": 0.25}
    for pattern in ("blocks.0.attn", "*.attn", "blocks.0.attn.K", "blocks.*"):
        (point,) = make_costs(document(hardware=ADC8, rules={"other.K": "digital", pattern: rule})).points
        found = rules_with_choice(point.settings.rules, Chosen(recipe="clip", clips={"blocks.0.attn.K": clip}))
        own, whole = found[0][1], dict(point.settings.rules)[pattern]
        assert replace(own, "clip", "model") == whole
        assert own.clip == KVClip(alpha=2.0, beta=0.25)
    (point,) = make_costs(document(hardware=ADC8, rules={"*.attn": rule})).points
    heads = Chosen(recipe="clip", clips={"a[0].attn#1.V": [clip, "none"]})
    (pattern, second), *_ = rules_with_choice(point.settings.rules, heads)
    assert fnmatchcase("a[0].attn#1.V", pattern), "a name is no pattern"
    assert second.array == dict(point.settings.rules)["*.attn"].array


@pytest.mark.parametrize(
    "rules",
    [
        {"*.attn": {"array": "clipformer_2024_per_value"}},
        {"*.K": {"scale": "column"}, "*.attn": {"array": "clipformer_2024_verified"}},
    ],
)
def test_a_rule_whose_operands_all_get_a_clip_is_priced(tmp_path: Path, rules: dict[str, Any]) -> None:
    """Rules that carry the chosen clips were once put in front, so that the rule of the study had no effect left."""
    changes = {"rules": rules}
    found = both(tmp_path, mitigation={"clip": "calibrated"}, **changes)
    (point,) = found.points
    assert point.cost is not None, found.cost_notes
    clips = point.accuracy.chosen.clips
    assert set(clips) == {"blocks.0.attn.K", "blocks.0.attn.V"}, "not all were clipped, so that nothing is tested"
    (own,) = make_costs(document(hardware=ADC8, **FEW, **changes)).points
    work = traced(own.settings.model, 0, own.settings.task, own.settings.rules)
    fixed = rules_with_choice(own.settings.rules, point.accuracy.chosen)
    run = simulate(work, own.settings.hardware, own.settings.dataflow, rules=dict(fixed))
    assert (point.cost.latency_s, point.cost.energy_J) == (run.latency, run.energy)
    assert not any("blocks.0.attn.K" in note for note in found.cost_notes), "notes name the rules of the study"
    assert any("rules['*.attn']" in note for note in found.cost_notes)


def test_only_the_operand_whose_clip_leaves_slices_empty_gets_another_price() -> None:
    """K as a rule that clips K alone; what a rule computes digitally is not clipped."""
    clip = {"alpha": 2.0, "beta": 0.25}
    chosen = Chosen(recipe="clip", clips={"blocks.0.attn.K": clip})
    for rules in ({}, {"*.V": "digital"}, {"*.attn": {"scale": "column"}}):
        points = [make_costs(document(hardware=ADC8, rules=rules)).points[0]]
        own = {"blocks.0.attn.K": {**(rules.get("*.attn") or {}), "clip": clip}, **rules}
        own.pop("*.attn", None)
        if "*.attn" in rules:
            own["*.V"] = rules["*.attn"]
        points += make_costs(document(hardware=ADC8, rules=own)).points
        plain, found, fixed = (price(points[0].settings), price(points[0].settings, chosen), price(points[1].settings))
        assert found == fixed
        assert found.counts["cell_writes"] < plain.counts["cell_writes"]
        everything = Chosen(recipe="clip", clips={**chosen.clips, "blocks.0.attn.V": clip})
        if rules != {"*.V": "digital"}:
            assert price(points[0].settings, everything).counts["cell_writes"] < found.counts["cell_writes"]


def test_a_choice_for_operands_that_a_phase_lacks_changes_no_price() -> None:
    (point,) = make_costs(document(hardware=ADC8, rules={"*.attn": {"scale": "column"}})).points
    elsewhere = Chosen(recipe="clip", clips={"blocks.7.attn.K": {"alpha": 2.0, "beta": 0.25}})
    assert price(point.settings, elsewhere) == price(point.settings)


def test_without_a_choice_settings_stay_as_they_are() -> None:
    (point,) = make_costs(document()).points
    assert without_choice(point.settings, None) is point.settings


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"model": {"source": "shapes:fashion-vit"}}, "no accuracy: shapes:fashion-vit is a table of dimensions"),
        ({"task": None}, "no accuracy: the study has no [task]; add one to measure it"),
    ],
)
def test_what_cannot_be_measured_is_priced_alone(changes: dict[str, Any], note: str) -> None:
    content = {name: value for name, value in document(**changes).items() if value is not None}
    costs = make_costs(content)
    assert not has_accuracy(costs)
    found = costs_alone(costs)
    assert found.points == study_costs(costs).points
    assert found.notes[0].startswith(note)


def test_points_that_cost_the_same_share_a_row(tmp_path: Path) -> None:
    clips = ["none", {"alpha": 2.0, "beta": 0.25}]
    sweeps = [{"mitigation.clip": clips, GAMMA: [0, 4]}, {"label": "noise in {noise}", GAMMA: 7}]
    rows = [line for line in shown(both(tmp_path, sweep=sweeps)).splitlines() if line.startswith("│")]
    assert len(rows) == 2
    assert "no mitigation and 1 labeled" in rows[0]
    assert "ClipFormer (2, 0.25) " in rows[1]
    assert "γ" not in rows[0] + rows[1], "write noise changes no price"


def priced(settings: CostSettings, chosen: Chosen) -> CostResult:
    """The price of a point with what calibration chose."""
    return price(without_choice(settings, chosen), chosen)


@pytest.mark.slow
def test_a_chosen_mitigation_of_weights_is_priced_at_its_point(tmp_path: Path) -> None:
    sigma = "hardware.projection.array.cell.write_noise.sigma"
    found = both(tmp_path, mitigation={"weights": "auto"}, sweep={sigma: [0, 0.7]})
    quiet, noisy = (point.accuracy.chosen.weights for point in found.points)
    assert (quiet.recipe, quiet.weights) == ("none", {})
    rules = {name: {"weights": spec.canonical()} for name, spec in noisy.weights.items()}
    (own,) = make_costs(document(hardware=ADC8, **FEW, rules=rules)).points
    assert found.points[1].cost == price(own.settings)
    scaled = Chosen(recipe="none", weights={"recipe": "scaled", "weights": {"head": {"scaling": 0.5}}})
    (point,) = make_costs(document(hardware=ADC8, mitigation={"weights": "auto"})).points
    plain, more = priced(point.settings, Chosen(recipe="none")), priced(point.settings, scaled)
    assert more.energy_J > plain.energy_J
    assert found.cost_notes == (CORES,)


def test_a_chosen_mitigation_of_weights_keeps_k_and_v_as_the_study_says() -> None:
    kv, clip = {"mean": True, "basis": "hadamard"}, {"alpha": 2.0, "beta": 0.25}
    chosen = Chosen(recipe="none", weights={"recipe": "none"})
    for mitigation in ({"weights": "auto", "kv": kv}, {"weights": "auto", "clip": clip}):
        (point,) = make_costs(document(hardware=ADC8, mitigation=mitigation)).points
        (same,) = make_costs(document(hardware=ADC8, mitigation={**mitigation, "weights": "none"})).points
        assert priced(point.settings, chosen) == price(same.settings)
