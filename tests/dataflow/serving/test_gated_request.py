"""Gated tiles in a request: each pass takes the static energy of a simulation of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import ohmformer as of
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.block_jobs import block_jobs
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.spec import Dataflow


class InJobs(Dataflow):
    """The jobs of a dataflow in blocks, given one by one, so that only the event engine times them."""

    kind: str = "in_jobs"

    def jobs(self, placement: Placement) -> Sequence[Job]:
        return block_jobs(placement, of.LayerSerial())


CASES: list[tuple[str, str, int, of.Dataflow]] = [
    ("gpt2", "nvm_ideal", 1, of.LayerSerial()),
    ("gpt2", "nvm_ideal", 3, of.LayerOverlap(block=16)),
    ("gpt2", "xformer_tvlsi_2023", 3, of.SequenceBlocking(block=16)),
    ("gpt2", "xformer_tvlsi_2023", 2, of.LayerSerial(batching="serial")),
    ("gpt2", "xformer_tvlsi_2023", 2, InJobs()),
    ("gpt2", "puma_asplos_2019", 2, of.LayerSerial()),
    ("gpt2", "sram_iso_area", 2, of.LayerSerial()),
    ("gpt2", "h100_sxm", 2, of.LayerSerial()),
    ("t5-base", "nvm_ideal", 2, of.LayerOverlap()),
]


@pytest.mark.parametrize(("model", "name", "batch", "flow"), CASES, ids=str)
def test_static_energy_is_that_of_single_passes(model: str, name: str, batch: int, flow: of.Dataflow) -> None:
    hardware = of.load(name)
    if hardware.chip is not None:
        hardware = of.replace(hardware, "chip.idle_tiles", "gated")
    if name == "nvm_ideal":
        hardware = of.replace(hardware, "attention.refresh", "1 ms")
    served = of.serve(model, hardware, prompt=70, generate=4, batch=batch, dataflow=flow)
    lengths = [{"context": 70 + n} if model == "gpt2" else {"context": 1 + n, "tokens": 70} for n in range(3)]
    runs = [of.simulate(of.shapes(model, tokens=70, batch=batch, phase="prefill"), hardware, flow)]
    runs += [of.simulate(of.shapes(model, phase="decode", batch=batch, **n), hardware, flow) for n in lengths]  # type: ignore[arg-type]
    idle = served.machine.power  # of the die of a GPU; 0 for gated tiles alone
    static = [run.timeline.gated + idle * run.latency for run in runs]
    dynamic = [run.energy - run.energy_by("component").get("static", 0.0) for run in runs]
    again = served.refresh.gated.sum() if served.refresh else 0.0
    assert served.energy_by("component").get("static", 0.0) == pytest.approx(sum(static) + again, rel=1e-9)
    if served.refresh is None or not served.refresh.count:
        assert served.prefill_energy == pytest.approx(dynamic[0] + static[0], rel=1e-9)
        assert served.step_energy == pytest.approx([sum(pair) for pair in zip(dynamic, static, strict=True)][1:])
    for kind in ("component", "operation", "engine"):
        assert sum(served.energy_by(kind).values()) == pytest.approx(served.energy, rel=1e-9)  # type: ignore[arg-type]
    for step in range(3):
        timeline = served.timeline(step)
        assert served.decoding is not None
        assert timeline.gated == pytest.approx(served.decoding.gated[step], rel=1e-9)


def test_refreshes_switch_tiles_on() -> None:
    """Between two refreshes a machine computes for the interval less the longest refresh; each takes tiles for T."""
    hardware = of.replace(of.load("nvm_ideal"), "chip.idle_tiles", "gated")
    hardware = of.replace(hardware, "attention.refresh", "100 us")
    served = of.serve("gpt2", hardware, prompt=20, generate=30)
    assert served.refresh is not None
    assert served.refresh.count > 3
    each = sum(kind.static * n for kind, n in zip(served.refresh.kinds, served.refresh.times, strict=True))
    work = served.prefill_gated + served.decoding.gated.sum()  # type: ignore[union-attr]
    assert served.energy_by("component")["static"] == pytest.approx(work + each, rel=1e-12)
    assert served.prefill_energy + served.step_energy.sum() == pytest.approx(served.energy, rel=1e-12)


def test_gated_tiles_take_less_and_the_steady_state_of_one_request_is_the_request() -> None:
    on = of.load("xformer_tvlsi_2023")
    gated = of.replace(on, "chip.idle_tiles", "gated")
    always, at_work = (of.serve("gpt2", each, prompt=50, generate=9) for each in (on, gated))
    assert at_work.latency == always.latency
    assert at_work.area == always.area
    assert 0 < at_work.energy_by("component")["static"] < always.energy_by("component")["static"]
    steady = at_work.steady
    assert steady is not None
    assert steady.energy_per_token == pytest.approx(at_work.energy_per_token, rel=1e-12)
    assert steady.power == pytest.approx(at_work.power, rel=1e-12)
