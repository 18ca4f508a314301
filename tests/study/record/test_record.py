"""The record of a study: what energy and area rest on, what ran where, and the hardware with its sources."""

from __future__ import annotations

import pytest

from ohmformer.schema import replace, walk
from ohmformer.study.cost import cost_settings, make_costs, read_costs, runs_of, study_costs
from ohmformer.study.record.basis import ENERGY, GROWTH, grown
from ohmformer.study.record.record import hardware_record, study_record

MACHINES = ("xformer_tvlsi_2023", "nvm_ideal", "puma_asplos_2019", "gtx_1060", "clipformer_tcad_2024_adc8")


def document(base: str) -> dict[str, object]:
    return {"name": "x", "model": {"source": "shapes:bert-base", "seq_len": 64}, "hardware": {"base": base}}


@pytest.mark.parametrize("base", MACHINES)
def test_shares_of_energy_and_area_add_up_and_so_do_parts_of_the_area(base: str) -> None:
    study = make_costs(document(base))
    record = study_record("", "bert_base", costs=study)
    assert record.priced is not None
    assert record.priced.basis is not None
    (point,) = study_costs(study).points
    assert sum(record.priced.area_m2.values()) == pytest.approx(point.cost.area_m2, rel=1e-6)
    assert sum(record.priced.basis.energy.values()) == pytest.approx(1, rel=1e-6)  # energy is linear in these numbers
    assert sum(record.priced.basis.area.values()) == pytest.approx(1, rel=1e-6)


def test_a_number_that_is_assumed_has_the_share_that_its_growth_shows() -> None:
    settings = cost_settings({key: value for key, value in document("nvm_ideal").items() if key != "name"})
    path = "chip.tile_power"
    hardware = settings.hardware
    mine = grown(hardware, ENERGY, lambda other, source: other == path)
    assert mine == replace(hardware, path, hardware.chip.tile_power * GROWTH)  # type: ignore[union-attr]
    static = runs_of(settings)[-1].energy_by("component")["static"]
    changed = settings.model_copy(update={"hardware": mine})
    growth = runs_of(changed)[-1].energy - runs_of(settings)[-1].energy
    assert growth == pytest.approx(static * (GROWTH - 1), rel=1e-6)


def test_every_value_of_the_hardware_is_in_the_record() -> None:
    hardware = read_costs("bert_base").points[0].settings.hardware
    rows = {number.field: number for number in hardware_record("x", hardware).numbers}
    stated = {path for path, value, _ in walk(hardware) if value is not None and value != ()} - {"title"}
    assert set(rows) == stated
    assert rows["chip.clock"].value == "1 GHz"
    assert rows["projection.array.cell.endurance"].kind == "assumed"
    assert all(number.kind for number in rows.values() if number.source)


def test_the_record_says_what_ran_where_and_when() -> None:
    study = read_costs("bert_base")
    record = study_record("ohmformer cost bert_base", "bert_base", costs=study)
    found = record.priced
    assert found is not None
    (run,) = runs_of(study.points[0].settings)
    assert sum(each.count for each in found.ran) == len(run.placement.workload.ops)
    assert sum(each.macs for each in found.ran) == run.placement.workload.macs
    assert {each.engine for each in found.ran if "keys" in each.what} == {"attention.key: sram"}
    assert found.timeline is not None
    assert found.timeline.latency_s == run.latency
    assert len(found.timeline.work) == found.timeline.jobs == len(run.timeline.jobs)
    assert found.roofline is not None
    assert sum(point.operations for point in found.roofline.points) == 2 * run.placement.workload.macs
    assert all(point.operations / point.seconds <= found.roofline.peak_op_s for point in found.roofline.points)
    assert ("model.source", "shapes:bert-base") in record.settings
