"""The tables of docs/cost.md hold what the model gives today."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import ohmformer as of

PAGE = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")


@cache
def row(start: str) -> list[str]:
    """The cells of the only row of a table that starts so."""
    (found,) = re.findall(rf"^\| {re.escape(start)} \|(.*)\|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in found.split("|")]


def milliseconds(work: of.Workload, machine: of.Accelerator, dataflow: of.Dataflow) -> float:
    return float(of.explore([of.DesignPoint(work, machine, dataflow)]).latency[0]) * 1e3


@pytest.mark.parametrize(
    ("start", "machine"),
    [
        ("PUMA at 16 bits, bit by bit", "puma_asplos_2019_16bit"),
        ("ISAAC", "isaac_isca_2016"),
        ("X-Former, projections bit by bit", "xformer_tvlsi_2023_bit_serial"),
        ("X-Former, as its paper reports", "xformer_tvlsi_2023"),
        ("the same within the limits", "xformer_tvlsi_2023_limited_network"),
    ],
)
def test_latencies_beside_loads_of_the_network(start: str, machine: str) -> None:
    found = milliseconds(of.shapes("bert-base", tokens=512), of.load(machine), of.LayerOverlap(block=64))
    assert row(start)[-1] == f"{float(f'{found:.3g}'):.3g} ms"


@pytest.mark.parametrize(
    ("start", "work", "machine"),
    [
        ("BERT-base, 512, X-Former", of.shapes("bert-base", tokens=512), "xformer_tvlsi_2023"),
        ("GPT-2, 1,024, `nvm_ideal`", of.shapes("gpt2", tokens=1024, phase="prefill"), "nvm_ideal"),
    ],
)
def test_latencies_of_three_dataflows(start: str, work: of.Workload, machine: str) -> None:
    flows = (of.LayerSerial(), of.SequenceBlocking(block=64), of.LayerOverlap(block=64))
    found = [milliseconds(work, of.load(machine), flow) for flow in flows]
    assert row(start)[:3] == [f"{each:.4g}" for each in found]


@pytest.mark.parametrize("cells", ["64 tokens", "all tokens"])
def test_a_cache_larger_than_its_cells(cells: str) -> None:
    machine = of.load("nvm_ideal")
    for part in ("key", "value") if cells == "64 tokens" else ():
        machine = of.replace(machine, f"attention.{part}.resident", 64)
        machine = of.replace(machine, f"attention.{part}.overflow", "spill")
    found = of.simulate(of.shapes("llama-3-8b", phase="decode", context=4096), machine)
    shown = row(f"{cells} | {'`spill`' if cells == '64 tokens' else '-'}")
    assert shown[1:] == [f"{found.latency * 1e3:.3f} ms", f"{found.energy:.3f} J", f"{found.area * 1e6:,.0f} mm²"]
