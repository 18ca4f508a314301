"""A study with a budget for K and V: its own cost half prices the candidates, and decides the key of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.mitigation.budget import KVBudget
from ohmformer.mitigation.spec import Conditioning, KVClip
from ohmformer.study.cost import price
from ohmformer.study.evaluate_point import evaluate_point
from ohmformer.study.join_cost import with_costs
from ohmformer.study.pricing.evaluate import evaluate_with_cost_half
from ohmformer.study.pricing.kv_prices import kv_cost, price_of
from ohmformer.study.read_study import accuracy_half, cost_half, make_study, make_whole
from ohmformer.study.results.document import study_results
from ohmformer.study.results.spec import Chosen, PointResult
from ohmformer.study.run import run_study, study_keys
from ohmformer.study.spec import Settings
from ohmformer.study.store.store import Store
from tests.report.results import answer
from tests.study.small import GAMMA, document

RESIDUAL = Conditioning(mean=True, basis="hadamard", scale="token", residual={"bits": "ideal"})
NAMES = ("blocks.0.attn.K", "blocks.0.attn.V")


def content(**changes: Any) -> dict[str, Any]:
    base = {"hardware": {"base": "clipformer_tcad_2024_adc8"}, "simulation": {"level": "noise", "batch": 16}}
    kv = {"auto": True, "latency": "+20 %", "cells": 1.0}
    return document(**{**base, "mitigation": {"kv": kv}, "sweep": {GAMMA: 6}, **changes})


def settings(**changes: Any) -> Settings:
    (point,) = make_study(content(**changes)).points
    return point.settings


@pytest.mark.parametrize(
    ("kv", "said"),
    [
        ({"latency": "+10 %"}, "mitigation.kv: has the limit 'latency' of a budget; write auto = true beside it"),
        ({"auto": True, "latency": "10 %"}, "mitigation.kv.latency = '10 %': has no sign; write an increase"),
        ({"auto": True, "basis": "hadamard"}, "mitigation.kv.basis: is not a key here"),
        ({"auto": True, "residual": {"bits": 99}}, "mitigation.kv.residual.bits = 99: must be <= 12 or 'ideal'"),
        ({"auto": False}, "mitigation.kv.auto = False: marks a budget; write auto = true, or another kv"),
        (["auto"], "mitigation.kv = ['auto']: is not a conditioning; write 'none', 'auto' or { mean"),
    ],
)
def test_a_bad_budget_is_refused_in_one_line(kv: Any, said: str) -> None:
    with pytest.raises(BadInput) as error:
        settings(mitigation={"kv": kv})
    assert str(error.value).startswith(f"study: {said}")
    assert "\n" not in str(error.value)


def test_a_budget_chooses_clips_too() -> None:
    with pytest.raises(BadInput, match=r"chooses clips too; write clip = 'none'"):
        settings(mitigation={"kv": {"auto": True}, "clip": "calibrated"})


def test_only_a_budget_has_prices() -> None:
    assert settings(mitigation={"kv": "auto"}).pricing is None
    assert price_of(settings(mitigation={"kv": "auto"})) is None
    assert settings().pricing is not None
    assert price_of(settings()) is not None


def test_the_price_is_that_of_the_cost_half_with_the_same_choice() -> None:
    found = settings()
    assert found.pricing is not None
    ask = price_of(found)
    assert ask is not None
    clip = KVClip(alpha=2.0, beta=0.25)
    for clips, kv in (({}, {}), ({}, dict.fromkeys(NAMES, RESIDUAL)), ({NAMES[0]: clip, NAMES[1]: (clip, "none")}, {})):
        cost = ask(clips, kv)
        plain = {"rules": {name: {"clip": value} for name, value in clips.items()}, "mitigation": {}}
        (point,) = cost_half(make_whole(content(**plain))).points
        result = price(point.settings, Chosen(recipe="x", kv=kv))
        assert (cost.latency, cost.energy, cost.area) == (result.latency_s, result.energy_J, result.area_m2)
        assert (cost.writes, cost.lifetime) == (result.counts["cell_writes"], result.lifetime_s)
    assert ask(dict.fromkeys(NAMES, clip), {}).cells == 0.75 * ask({}, {}).cells


def test_requests_are_priced_from_prompt_to_last_token() -> None:
    model = {"source": "shapes:gpt2", "seq_len": 16, "generate": 4}
    given = {"model": model, "hardware": {"base": "clipformer_tcad_2024_adc8"}}
    (point,) = cost_half(make_whole({"name": "x", **given})).points
    names = [f"{layer}.{axis}" for layer in range(12) for axis in "KV"]
    plain = kv_cost(point.settings, {}, {})
    assert plain.latency > 0
    assert plain.cells > 0
    from ohmformer.study.serving import served_of

    served = served_of(point.settings)
    assert (plain.latency, plain.energy) == (served.latency, served.energy)
    operands = sorted({op.name for op in served.passes.prefill.dynamic}) or names
    residual = kv_cost(point.settings, {}, dict.fromkeys(operands, RESIDUAL))
    assert residual.latency > plain.latency
    assert residual.cells == plain.cells


def test_a_limit_without_prices_is_refused_by_name_before_anything_runs(tmp_path: Path) -> None:
    unpriced = {"hardware": {"base": "generic_amplitude"}, "sweep": {"seed": 0}}
    study = make_study(content(**unpriced))
    with pytest.raises(BadInput) as error:
        run_study(study, tmp_path / "out")
    assert "mitigation.kv.latency: is a limit, but there is no price: hardware.chip: is missing" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    assert price_of(settings(**unpriced, mitigation={"kv": {"auto": True}})) is None
    with pytest.raises(BadInput, match=r"mitigation.kv: the prices of its budget are missing; run it as a study"):
        evaluate_point(settings())


def test_what_decides_a_price_is_in_the_key_where_there_is_a_budget() -> None:
    def keys(**changes: Any) -> str:
        (key,) = study_keys(make_study(content(**changes)))
        return key

    dearer = {"hardware": {"base": "clipformer_tcad_2024_adc8", "chip.vector.energy_per_op": "9 pJ"}}
    blocks = {"dataflow": {"kind": "sequence_blocking", "block": 2}}
    plain = {"mitigation": {"kv": "auto"}}
    assert keys(**plain) == keys(**plain, **dearer) == keys(**plain, **blocks), "prices do not change an accuracy"
    other = [
        {"kv": {"auto": True, "latency": limit, "cells": cells}} for limit, cells in (("+21 %", 1.0), ("+20 %", 2.0))
    ]
    found = [keys(), keys(**dearer), keys(**blocks), *(keys(mitigation=each) for each in other), keys(**plain)]
    assert len(set(found)) == len(found)
    assert keys(mitigation={"kv": {"auto": True, "latency": 1.2, "cells": "+0 %"}}) == keys(), "written otherwise"
    title = {"hardware": {"base": "clipformer_tcad_2024_adc8", "title": "another name"}}
    assert keys(**title) == keys()


@pytest.mark.slow
def test_a_sweep_over_budgets_is_stored_and_found_again(tmp_path: Path) -> None:
    whole = make_whole(content(sweep={"mitigation.kv.latency": ["+0 %", "unlimited"], GAMMA: [0, 6]}))
    study = accuracy_half(whole)
    results = run_study(study, tmp_path, progress=False)

    def fail(settings: Settings) -> PointResult:
        raise AssertionError("computed again")

    assert run_study(study, tmp_path, evaluate=fail) == results
    with Store(tmp_path / "results.sqlite") as store:
        assert len(store) == 4
    found = with_costs(study_results(study, study_keys(study), results), cost_half(whole))
    for point in found.points:
        chosen = point.accuracy.chosen
        assert chosen is not None
        assert chosen.comparison is not None
        assert point.cost is not None
        (taken,) = (each for each in chosen.comparison.candidates if each.chosen)
        assert taken.name == chosen.recipe
        assert taken.cost is not None
        assert (taken.cost.latency, taken.cost.energy) == (point.cost.latency_s, point.cost.energy_J)
        assert taken.cost.lifetime == point.cost.lifetime_s
        assert (chosen.recipe == "none") == (point.set[GAMMA] == 0), "without noise nothing is done"
    tight, free = (found.points[index].accuracy.chosen for index in (1, 3))
    assert tight is not None
    assert free is not None
    assert tight.comparison is not None
    assert all(spec.residual is None for spec in tight.kv.values())
    assert any(spec.residual is not None for spec in free.kv.values())


@pytest.mark.slow
def test_candidates_without_a_price_are_left_out_where_there_is_a_limit() -> None:
    """The converter of the accelerator has 8 bits, so it cannot read back with 12."""
    for limit in ("+500 %", "unlimited"):
        kv = {"auto": True, "latency": limit, "residual": {"bits": 12}}
        only = {"cells": 1.0} if limit != "unlimited" else {}
        chosen = evaluate_with_cost_half(settings(mitigation={"kv": {**kv, **only}})).accuracy.chosen
        assert chosen is not None
        assert chosen.comparison is not None
        names = [each.name for each in chosen.comparison.candidates]
        if limit == "unlimited":
            assert not chosen.comparison.left_out
            assert {each.name for each in chosen.comparison.candidates if each.cost is None} == {
                name for name in names if "residual" in name
            }
        else:
            assert names == ["none", "clip", "firm clip", "hadamard", "balanced", "range and radix"]
            assert set(chosen.comparison.left_out) == {
                f"{name}, residual" for name in ("range and radix", "hadamard", "balanced")
            }
            assert all(
                "residual.bits = 12: is above the 8 bits" in reason for reason in chosen.comparison.left_out.values()
            )


def test_a_result_without_a_budget_has_no_front() -> None:
    assert "comparison" not in Chosen(recipe="none").model_dump()
    assert answer().model_dump() == PointResult.model_validate(answer().model_dump(by_alias=True)).model_dump()


@pytest.mark.slow
def test_a_point_evaluates_with_its_prices() -> None:
    kv = {"auto": True, "latency": "unlimited", "residual": {"bits": 6}}
    result = evaluate_with_cost_half(settings(mitigation={"kv": kv}, trials={"chips": 2}))
    chosen = result.accuracy.chosen
    assert chosen is not None
    assert {spec.residual.bits for spec in chosen.kv.values() if spec.residual} == {6}
    assert isinstance(settings(mitigation={"kv": kv}).mitigation.kv, KVBudget)
