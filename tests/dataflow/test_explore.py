"""Many design points at once give what `simulate` gives for each."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ohmformer as of
from ohmformer.dataflow.explore import DesignPoint, explore
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip
from ohmformer.workload.shapes import Transformer, shapes
from tests.dataflow.build import dataflows

DATAFLOWS = dataflows(largest_block=40)


def accelerator(name: str) -> Accelerator:
    found = load(name)
    assert isinstance(found, Accelerator)
    return found


MACHINES = [
    accelerator(name) for name in ("xformer_tvlsi_2023", "puma_asplos_2019", "nvm_ideal", "sram_iso_area", "h100_sxm")
]
WORKS = st.one_of(
    st.builds(shapes, st.just("bert-base"), tokens=st.integers(1, 90), batch=st.integers(1, 2)),
    st.builds(shapes, st.just("t5-base"), tokens=st.integers(2, 30), batch=st.integers(1, 2)),
    st.builds(shapes, st.just("gpt2"), phase=st.just("decode"), context=st.integers(0, 90)),
)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(WORKS, min_size=1, max_size=2),
    st.lists(st.sampled_from(MACHINES), min_size=1, max_size=2),
    st.lists(DATAFLOWS, min_size=1, max_size=3),
)
def test_all_points_at_once_are_what_each_takes_alone(
    works: list[of.Workload], machines: list[Accelerator], dataflows: list[LayerSerial | SequenceBlocking]
) -> None:
    points = [DesignPoint(*point) for point in product(works, machines, dataflows)]
    found = explore(points)
    runs = [simulate(*point) for point in points]
    assert found.latency == pytest.approx([run.latency for run in runs], rel=1e-9)
    assert found.energy == pytest.approx([run.energy for run in runs], rel=1e-9)
    assert found.area == pytest.approx([run.area for run in runs], rel=1e-9)
    assert [one.counts for one in found.placements] == [run.placement.counts for run in runs]


def test_changed_prices_and_a_clip_are_seen() -> None:
    work, machine = shapes("bert-base", tokens=64), MACHINES[2]
    dearer = of.replace(machine, "projection.array.cost.read_energy", 1e-9)
    found = explore([DesignPoint(work, each, LayerSerial()) for each in (machine, dearer)])
    assert found.latency[0] == found.latency[1]
    assert found.energy[1] > found.energy[0]
    point, clip = DesignPoint(work, accelerator("clipformer_tcad_2024"), LayerSerial()), KVClip(alpha=0.0, beta=0.25)
    clipped = explore([point], clip=clip)
    assert clipped.energy[0] == pytest.approx(simulate(*point, clip=clip).energy)
    assert clipped.energy[0] < explore([point]).energy[0]


def test_no_points_are_refused() -> None:
    with pytest.raises(BadInput, match="points: is empty; give at least one"):
        explore([])


def test_layers_of_equal_work_are_priced_once() -> None:
    table = Transformer(title="deep", kind="encoder", layers=30, width=64, heads=4, hidden=128, tokens=32)
    placed = explore([DesignPoint(shapes(table), MACHINES[0], LayerSerial())]).placements[0]
    assert [(len(layer.stages), count) for layer, count in placed.distinct()] == [(7, 30), (1, 1)]
    assert len({id(layer.stages) for layer in placed.layers}) == 2
    assert [layer.name for layer in placed.layers] == [*(f"layer {n}" for n in range(30)), "head"]
