"""What each method costs beside its accuracy: arrays, writes, energy, time and wear of a pass, from the cost half."""

from __future__ import annotations

from typing import Any

from ohmformer import units
from ohmformer.arch.placement import Placement
from ohmformer.dataflow.run import Run
from ohmformer.dataflow.wear import lifetime
from ohmformer.study.cost import cost_settings, runs_of

HARDWARE = "clipformer_tcad_2024"
TOKENS = {50: "98 × 98 pixels, as measured here", 197: "224 × 224 pixels, as in the paper"}
OURS = {"mean": True, "basis": "balanced", "scale": "token", "slice_base": 1, "unbiased": True}
MITIGATIONS: dict[str, dict[str, Any]] = {
    "no mitigation": {},
    "ClipFormer (2, 0.25)": {"clip": {"alpha": 2.0, "beta": 0.25}},
    "ours (balanced)": {"kv": OURS},
}


def cost_block() -> str:
    """One row for each number of tokens and method, for one image on a chip of DeiT-S's shape."""
    lines = [
        "| tokens | K and V | arrays of K, V | energy of writing K and V | energy | time | area "
        "| images until cells wear out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for tokens in TOKENS:
        lines += [_row(tokens, name, priced(mitigation, tokens)) for name, mitigation in MITIGATIONS.items()]
    return "\n".join(lines)


def priced(mitigation: dict[str, Any], tokens: int) -> Run:
    """One image through a model of DeiT-S's shape."""
    document = {"model": {"source": "shapes:deit-small", "seq_len": tokens}, "hardware": HARDWARE}
    (run,) = runs_of(cost_settings({**document, "mitigation": mitigation}))
    return run


def write_energy(placement: Placement) -> float:
    """Energy of the stages that write K and V [J]."""
    stages = [stage for layer in placement.layers for stage in layer.stages]
    return sum(part.joules for stage in stages for part in stage.parts if part.name == "write")


def _row(tokens: int, name: str, run: Run) -> str:
    counts = ", ".join(str(run.placement.arrays[role]) for role in ("attention.key", "attention.value"))
    wear = lifetime(run.placement, 1 / run.latency)
    left = "-" if wear is None else f"{wear.seconds / run.latency:.2g}"
    written, energy = (units.show(joules, "J") for joules in (write_energy(run.placement), run.energy))
    latency, area = units.show(run.latency, "s"), units.show(run.area, "m^2")
    return f"| {tokens} ({TOKENS[tokens]}) | {name} | {counts} | {written} | {energy} | {latency} | {area} | {left} |"
