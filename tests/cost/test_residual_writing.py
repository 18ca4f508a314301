"""Residual writing has no price yet: costs of its writes are refused by name, in every way to ask for them."""

from __future__ import annotations

import pytest

import ohmformer as of
from ohmformer.cost.components import write_cost
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial
from ohmformer.mapping.planning import plan
from ohmformer.mitigation.spec import Conditioning
from ohmformer.workload.shapes import shapes

HARDWARE = of.load("clipformer_tcad_2024")
WORK = shapes("bert-base", tokens=16)
MESSAGE = r"residual: its read-backs, and writes that follow one another, have no price yet; leave residual out"


@pytest.mark.parametrize("flow", [LayerSerial(), LayerOverlap(block=8)])
def test_keys_and_values_are_refused(flow: LayerSerial | LayerOverlap) -> None:
    with pytest.raises(of.BadInput, match=MESSAGE):
        simulate(WORK, of.replace(HARDWARE, "attention.array.residual", {}), flow)
    with pytest.raises(of.BadInput, match=MESSAGE):
        simulate(WORK, HARDWARE, flow, kv=Conditioning(residual={}))


def test_weights_are_refused_when_they_are_written() -> None:
    """Their reads have the prices of cells that were written at once."""
    residual = of.replace(HARDWARE, "projection.array.residual", {})
    assert simulate(WORK, residual).energy == simulate(WORK, HARDWARE).energy
    with pytest.raises(of.BadInput, match=f"hardware.projection.array.{MESSAGE}"):
        write_cost(plan(64, 64, residual.projection.array), "projection")
