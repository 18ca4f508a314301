"""Documents with costs, and pages of them, without computing any."""

from __future__ import annotations

from typing import Any

from ohmformer.study.results.costs import CostResult
from ohmformer.study.results.record import (
    Basis,
    HardwareNumber,
    HardwareRecord,
    PassRecord,
    Ran,
    Record,
    Roofline,
    RooflinePoint,
    TimelineRecord,
    Work,
)
from ohmformer.study.results.spec import PricedPoint, StudyCosts, StudyResults
from tests.report.results import DEMO, point

HOSTILE = "</script><script>alert(1)</script>\x1b[31m\x07\u202e{{ 7 * 7 }}\ud800<img src=x onerror=alert(2)>"
"""A name that tries to be markup, a template, and a code for a terminal."""


def cost(latency: float = 1e-3, energy: float = 1e-4, life: float | None = 3e8, name: str = "adc") -> CostResult:
    """A cost of some size."""
    wear = {
        "role": "attention.key", "rate_per_s": 10.0, "writes_per_cell_s": 10.0, "pulses_per_write": 2,
        "endurance": 1e8, "endurance_source": "assumed", "arrays": "shared",
    }  # fmt: skip
    return CostResult.model_validate({
        "latency_s": latency, "energy_J": energy, "power_W": energy / latency, "area_m2": 2e-5,
        "throughput_per_s": 1 / latency, "tokens_per_s": 1 / latency, "efficiency_op_per_J": 1e12,
        "lifetime_s": life, "lifetime": wear, "utilization": {"projection": 0.5, "attention": 0.25},
        "energy_by": {
            "component": {name: 0.75 * energy, "array": 0.25 * energy},
            "operation": {"key": energy}, "engine": {"projection": energy},
        },
        "critical_path_s": {"key": latency}, "buffer_B": {}, "load": {}, "counts": {"arrays": 12, "tiles": 1},
    })  # fmt: skip


def record(word: str = "plain") -> Record:
    """A record of a study whose first point has a price."""
    number = HardwareNumber(field="chip.tile_area", value="1 mm^2", kind="assumed", source=word, where=word)
    work = Work(unit="attention.key", stage=word, layer="layer 0", block=0, start_s=0.0, seconds=1e-3)
    return Record(
        command=f"ohmformer run '{word}'",
        settings=(("model.source", word),),
        seed=7,
        hardware=(HardwareRecord(name=word, title=word, numbers=(number,)),),
        findings=(word,),
        priced=PassRecord(
            point=0,
            workload=word,
            ran=(Ran(name=word, what="product with keys", engine="attention.key: crossbar", count=12, macs=1000),),
            area_m2={"ADC": 1e-5, word: 1e-5},
            basis=Basis(
                energy={"derived": 0.75, "assumed": 0.25}, area={"published": 1.0}, energy_of={word: 0.25}, area_of={}
            ),
            timeline=TimelineRecord(latency_s=1e-3, shown_s=1e-3, jobs=1, work=(work,)),
            roofline=Roofline(
                peak_op_s=1e12,
                bandwidth_B_s={word: 1e10},
                points=(RooflinePoint(stage=word, operations=1e6, moved_B=1e4, seconds=1e-5),),
            ),
        ),
    )


def costs(*found: CostResult, word: str = "plain", **more: Any) -> StudyCosts:
    """A study of cost that swept the number of rows."""
    points = tuple(
        PricedPoint(set={"hardware.projection.array.rows": 2**place}, label="", cost=each)
        for place, each in enumerate(found)
    )
    return StudyCosts(schema=1, study=word, key="k", versions={"ohmformer": "0"}, points=points, **more)


def both(word: str = "plain") -> StudyResults:
    """The sweep of the demo with costs, a record and a point that bears the word."""
    points = [*DEMO.points, point(0.5, label=word)]
    priced = [
        each.model_copy(update={"cost": cost(1e-3 * (1 + place), 1e-4 / (1 + place), name=word)})
        for place, each in enumerate(points)
    ]
    update = {"points": tuple(priced), "study": word, "cost_notes": (word,), "record": record(word)}
    return DEMO.model_copy(update=update)


def wide(count: int) -> StudyResults:
    """A study of many points, each with a price."""
    points = [
        point(
            0.5 + 0.4 * (place % 7) / 7,
            gamma=float(place // 20),
            **{
                "mitigation.clip": {"alpha": float(place % 20), "beta": 0.25},
                "hardware.attention.array.cell.write_noise.gamma": place // 20,
            },
        ).model_copy(update={"cost": cost(1e-3 * (1 + place % 31), 1e-4 * (1 + place % 17))})
        for place in range(count)
    ]
    return StudyResults(
        schema=1, study="many points", key="k", versions={}, points=tuple(points), cost_notes=(), record=record()
    )
