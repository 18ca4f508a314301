"""Every product is resolved once; energy is added up in one way."""

from __future__ import annotations

import pytest

from ohmformer.cost.engine_choice import EngineChoice, PlacedOp
from ohmformer.cost.operands import first_attention
from ohmformer.cost.placement import place
from ohmformer.cost.stage import total_energy
from ohmformer.dataflow.simulate import simulate
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.rules import Rule, RuleBook
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.mitigation.spec import Conditioning, KVClip, WeightMitigation
from ohmformer.schema import replace
from ohmformer.workload.shapes import shapes
from ohmformer.workload.spec import StaticMatMul

HARDWARE = load("clipformer_tcad_2024_adc8")
WORK = shapes("bert-base", tokens=128)
assert isinstance(HARDWARE.attention.key, ArrayEngine)
SMALL = replace(HARDWARE.attention.key.array, "rows", 64)


def test_a_product_knows_all_that_was_decided_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, kv = KVClip(alpha=2.0, beta=0.25), Conditioning(mean=True)
    site = WORK.dynamic[0].name.rpartition(".")[0]
    rules = RuleBook.read({site: Rule(array=SMALL, clip=clip)})
    choice = EngineChoice(HARDWARE, None, rules, WeightMitigation(rotate=True), kv)
    layer = choice.layer(WORK.layers()[0].ops, choice.tenants(WORK.ops))
    layer = layer if first_attention(layer) else choice.layer(WORK.layers()[1].ops, frozenset())
    key, value = first_attention(layer)
    assert (key.pattern, key.array, key.max_code) == (site, SMALL, clip.max_code(SMALL))
    assert (key.conditioning, key.shared) == (None, False)
    assert value.role == "attention.value"
    static = [each for each in layer if isinstance(each, PlacedOp) and isinstance(each.op, StaticMatMul)]
    assert all(each.rotated and each.holds_cells and each.role == "projection" for each in static)
    calls: list[str] = []
    resolve = EngineChoice.resolve
    monkeypatch.setattr(
        EngineChoice, "resolve", lambda self, op, **kw: calls.append(op.name) or resolve(self, op, **kw)
    )
    place(WORK, HARDWARE)
    assert len(calls) == len(set(calls)) == sum(isinstance(each, PlacedOp) for each in layer)


def test_a_digital_rule_is_refused_where_the_workload_has_the_product() -> None:
    name = WORK.dynamic[0].name
    with pytest.raises(BadInput, match=r"keeps .* digital, which the workload does not; trace it with this rule"):
        place(WORK, HARDWARE, rules={name: None})


def test_the_energy_of_a_run_is_that_of_its_placement() -> None:
    run = simulate(WORK, HARDWARE)
    whole = run.placement.energy
    assert whole == total_energy((stage, n) for layer, n in run.placement.distinct() for stage in layer.all_stages())
    by = run.energy_by("component")
    assert {name: by[name] for name in whole} == pytest.approx(whole)
