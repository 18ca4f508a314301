"""Units of engines: roles with equal engines share them, those of different engines work at the same time."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.cost.vector.units import lanes_for_all, unit_owners
from ohmformer.dataflow.explore import explore
from ohmformer.dataflow.placing import place_for
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerOverlap
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import Transformer, shapes

PUMA = load(Accelerator, "puma_asplos_2019")
CHIP = PUMA.chip
assert CHIP is not None
PER_TILE = CHIP.cores_per_tile * CHIP.vector.lanes_per_core
TEXT = shapes("bert-base", tokens=6)
TOKENS = LayerOverlap(block=1)


def attention(**fields: Any) -> Accelerator:
    engine = {"kind": "simd", "ops_per_mac": 2.0, **fields}
    return replace(replace(PUMA, "attention.key", engine), "attention.value", engine)


def units_of_stages(hardware: Accelerator) -> dict[str, tuple[str, int]]:
    """Stage of attention -> name and number of its units."""
    stages = simulate(TEXT, hardware, TOKENS).placement.layers[1].stages
    return {stage.name: (stage.unit, stage.pool) for stage in stages if stage.engine == "attention"}


def test_a_price_that_is_kept_does_not_name_the_units_of_another_accelerator() -> None:
    """The engine of values is the same object in both; in the first, keys have an equal one."""
    equal = attention(lanes=64, units=2)
    different = replace(equal, "attention.key.units", 8)
    assert different.attention.value is equal.attention.value
    apart = {"key": ("attention.key unit", 8), "value": ("attention.value unit", 2)}
    assert units_of_stages(equal) == {"key+value": ("attention.key unit", 2)}
    assert units_of_stages(different) == apart
    assert units_of_stages(equal) == {"key+value": ("attention.key unit", 2)}
    assert unit_owners(equal) == ("", "attention.key", "attention.key")
    assert unit_owners(different) == ("", "attention.key", "attention.value")
    assert unit_owners(PUMA) == ()


def test_explored_accelerators_with_other_units_equal_each_alone() -> None:
    equal = attention(lanes=64, units=2)
    machines = [equal, *(replace(equal, f"attention.{side}.units", n) for side in ("key", "value") for n in (1, 8))]
    found = explore([(TEXT, machine, TOKENS) for machine in machines])
    for machine, latency in zip(machines, found.latency, strict=True):
        assert latency == pytest.approx(simulate(TEXT, machine, TOKENS).latency, rel=1e-9)


@pytest.mark.parametrize(
    ("key", "value", "lanes"),
    [
        ({"lanes": 64, "units": 300}, {"lanes": 64, "units": 300}, 64 * 300),  # the same units
        ({"lanes": 64, "units": 300}, {"lanes": 64, "units": 301}, 64 * 601),
        ({"lanes": 20_000, "units": 1}, {"lanes": 30_000}, 50_000),
        ({"lanes": 20_000}, {"lanes": 30_000}, 30_000),  # one set of lanes in turn
        ({"lanes": 64, "units": 300}, {"lanes": 64, "shared": "layer"}, 64 * 300),
        ({}, {"lanes": 20_000, "units": 2}, 40_000),
    ],
)
def test_lanes_of_units_that_work_at_the_same_time_add(key: dict[str, Any], value: dict[str, Any], lanes: int) -> None:
    made = attention(**key)
    made = replace(made, "attention.value", {"kind": "simd", "ops_per_mac": 2.0, **value})
    assert lanes_for_all(made) == lanes
    own = 12 * 64 if value.get("shared") == "layer" else 0
    assert place_for(TOKENS, TEXT, made).tiles == max(432, -(-(lanes + own) // PER_TILE))


DEEP = Transformer(title="deep", kind="encoder", layers=10_000, width=128, heads=2, hidden=256, tokens=64)


@pytest.mark.slow
def test_too_many_jobs_with_shared_units_name_only_remedies_that_help() -> None:
    units = attention(lanes=64, units=2)
    for work, flow, said in (
        (shapes("bert-base", tokens=64, batch=10**6), LayerOverlap(block=64), "model.batch = 1000000: .*; lower batch"),
        (shapes(DEEP, tokens=64), TOKENS, "model.seq_len = 64: .* raise dataflow.block"),
    ):
        with pytest.raises(BadInput, match=said) as simulated:
            simulate(work, units, flow)
        with pytest.raises(BadInput) as explored:
            explore([(work, units, flow)])
        message = str(simulated.value)
        assert message == str(explored.value)
        assert "first come, first served have no closed form" in message
        assert "explore" not in message
        assert ("dataflow.block" in message) == (flow.block < 64)
