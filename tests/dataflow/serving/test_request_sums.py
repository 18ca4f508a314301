"""Laws of requests: totals are the sums of their passes, and longer requests or larger batches never take less."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

import ohmformer as of
from ohmformer.cost.write_wear import cells_of, max_writes

SMALL = of.Transformer(
    title="small", kind="decoder", layers=3, width=64, heads=4, hidden=128, entries=100, tokens=8, head=100
)
MACHINES: list[tuple[str, dict[str, Any]]] = [
    ("nvm_ideal", {}),
    ("xformer_tvlsi_2023", {}),
    ("xformer_tvlsi_2023", {"attention.key.resident": 16, "attention.value.resident": 4}),
    ("clipformer_tcad_2024", {"attention.arrays": "shared"}),
    ("gain_cell_leroux_2025", {}),
    ("isaac_isca_2016", {"attention.value.overflow": "spill", "attention.value.resident": 16}),
]


def machine(name: str, changes: dict[str, Any]) -> of.Accelerator:
    hardware = of.load(name)
    for path, value in changes.items():
        hardware = of.replace(hardware, path, value)
    return hardware


@pytest.mark.parametrize(("name", "changes"), MACHINES, ids=str)
def test_wear_is_the_sum_of_all_passes(name: str, changes: dict[str, Any]) -> None:
    hardware = of.replace(machine(name, changes), "attention.refresh", None)
    served = of.serve(SMALL, hardware, prompt=11, generate=9, batch=2)
    cells, most = dict[str, float](), dict[str, float]()
    works = [of.shapes(SMALL, phase="prefill", tokens=11, batch=2)]
    works += [of.shapes(SMALL, phase="decode", context=11 + step, batch=2) for step in range(8)]
    for work in works:
        built = of.place(work, hardware).machine
        assert built is not None
        for entry in built.kv:
            written = sum(use.layers * use.op.batch * cells_of(use, entry) for use in entry.uses)
            cells[entry.role] = cells.get(entry.role, 0.0) + written
            most[entry.role] = most.get(entry.role, 0.0) + max_writes(work, entry)
    for entry, highest, mean in served.writes:
        assert mean * entry.cells == pytest.approx(cells[entry.role], rel=1e-12)
        assert highest >= mean * (1 - 1e-12)
        if entry.shared:
            assert highest == pytest.approx(most[entry.role], rel=1e-12)


@pytest.mark.parametrize(("name", "changes"), MACHINES, ids=str)
@pytest.mark.parametrize("flow", [of.LayerSerial(), of.LayerOverlap(), of.LayerSerial(batching="serial")], ids=str)
@pytest.mark.slow
def test_more_tokens_and_requests_never_take_less(name: str, changes: dict[str, Any], flow: of.Dataflow) -> None:
    hardware = machine(name, changes)
    for field, values in (("prompt", (5, 6, 17, 40)), ("generate", (1, 2, 9, 30)), ("batch", (1, 2, 3, 5))):
        sizes = {"prompt": 6, "generate": 5, "batch": 2}
        found = [of.serve(SMALL, hardware, **{**sizes, field: value}, dataflow=flow) for value in values]
        for result in ("latency", "energy", "area", "ttft"):
            numbers = [getattr(served, result) for served in found]
            assert all(after >= before * (1 - 1e-12) for before, after in pairwise(numbers)), (field, result)
        for served in found:
            assert served.ttft + served.step_latency.sum() == pytest.approx(served.latency, rel=1e-12)
            assert served.energy_per_token * served.tokens == pytest.approx(served.energy, rel=1e-12)
            assert served.prefill_energy + served.step_energy.sum() == pytest.approx(served.energy, rel=1e-12)
            assert served.power * served.latency == pytest.approx(served.energy, rel=1e-12)
