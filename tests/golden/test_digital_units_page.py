"""The table of docs/cost.md on units of attention is what the package computes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerOverlap
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes

PAGE = Path(__file__).parents[2] / "docs" / "cost.md"
SECTION = PAGE.read_text().partition("\n## Digital units\n")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (.*) \| ([\d,]+) us \| ([\d.]+) mm² \|$", SECTION, re.MULTILINE)


def arrays_of_512() -> Accelerator:
    puma = load(Accelerator, "puma_asplos_2019")
    return replace(replace(puma, "projection.array.rows", 512), "projection.array.columns", 512)


def test_the_table_has_four_rows() -> None:
    assert len(ROWS) == 4


@pytest.mark.parametrize(("units", "latency", "area"), ROWS)
def test_a_row(units: str, latency: str, area: str) -> None:
    fields = tomllib.loads("\n".join(re.findall(r"`(.*?)`", units)))
    engine = {"kind": "simd", "ops_per_mac": 2.0, "lanes": 512, **fields}
    machine = replace(replace(arrays_of_512(), "attention.key", engine), "attention.value", engine)
    run = simulate(shapes("bert-base", tokens=128), machine, LayerOverlap(block=1))
    assert f"{run.latency * 1e6:,.0f}" == latency
    assert f"{run.area * 1e6:.1f}" == area


@pytest.mark.parametrize(("timing", "product"), [("one_access", 100e-9), ("bit_serial", 800e-9)])
def test_the_file_of_four_digital_units(timing: str, product: float, tmp_path: Path) -> None:
    """The file as it stands on the page: time of a product, units, and the latencies in the text."""
    [text] = (block for block in re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL) if "base =" in block)
    file = tmp_path / "four_units.toml"
    file.write_text(text.replace('= "one_access"', f'= "{timing}"'))
    run = simulate(shapes("bert-base", tokens=128), load(Accelerator, str(file)), LayerOverlap(block=1))
    stages = run.placement.layers[1].stages
    analog = [stage.per_token for stage in stages if stage.engine == "projection" and not stage.pool]
    assert analog == pytest.approx([product] * 4, rel=1e-6)
    assert {(stage.unit, stage.pool) for stage in stages if stage.engine == "attention"} == {("vector unit", 4)}
    said = re.search(r"the pass ([\d,]+) us, or\n([\d,]+) us with", SECTION)
    assert said is not None
    assert f"{run.latency * 1e6:,.0f}" == said.groups()[timing == "bit_serial"]
