"""What each method costs beside its accuracy: arrays, writes, energy, time and wear of a pass, from the cost half."""

from __future__ import annotations

from typing import Any

from stored import HERE

from ohmformer import units
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.lifetime import lifetime
from ohmformer.dataflow.simulate import Run
from ohmformer.study.cost import cost_settings, runs_of

HARDWARE = "clipformer_tcad_2024"
PASSES: dict[str, dict[str, Any]] = {
    "ViT-S, an image of 98 × 98 pixels (50 tokens)": {"source": "shapes:deit-small", "seq_len": 50},
    "DeiT-S, an image of 224 × 224 pixels (197 tokens), as in the paper": {
        "source": "shapes:deit-small",
        "seq_len": 197,
    },
    "bundled ViT, an image (50 tokens)": {"source": "shapes:fashion-vit"},
    "MiniLM, a tweet (32 tokens)": {"source": "shapes:shapes/minilm.toml"},
    "SmolLM2, one token behind 127 in the cache": {
        "source": "shapes:shapes/smollm2.toml",
        "phase": "decode",
        "context": 127,
    },
}
"""What is priced, and the model it takes."""

TOKEN = {"mean": True, "scale": "token", "radix": 1, "unbiased": True}
MITIGATIONS: dict[str, dict[str, Any]] = {
    "no mitigation": {},
    "ClipFormer (2, 0.25)": {"clip": {"alpha": 2.0, "beta": 0.25}},
    "ours (hadamard)": {"kv": {**TOKEN, "basis": "hadamard"}},
    "ours (balanced)": {"kv": {**TOKEN, "basis": "balanced"}},
}


def cost_block() -> str:
    """One table for each pass, one row for each method."""
    return "\n\n".join(_table(name, model) for name, model in PASSES.items())


def _table(name: str, model: dict[str, Any]) -> str:
    runs = {mitigation: priced(settings, model) for mitigation, settings in MITIGATIONS.items()}
    lines = [
        f"{name}:",
        "",
        "| K and V | arrays of K, V | energy of writing K and V | energy | time | area | passes until cells wear out |",
        "|---|---|---|---|---|---|---|",
        *(_row(mitigation, run) for mitigation, run in runs.items()),
    ]
    return "\n".join(lines)


def priced(mitigation: dict[str, Any], model: dict[str, Any]) -> Run:
    """One pass of a model."""
    (run,) = runs_of(cost_settings({"model": model, "hardware": HARDWARE, "mitigation": mitigation}, HERE))
    return run


def write_energy(placement: Placement) -> float:
    """Energy of the stages that write K and V [J]."""
    stages = [stage for layer in placement.layers for stage in layer.stages]
    return sum(part.joules for stage in stages for part in stage.parts if part.name == "write")


def _row(name: str, run: Run) -> str:
    counts = ", ".join(str(run.placement.arrays[role]) for role in ("attention.key", "attention.value"))
    wear = lifetime(run.placement, 1 / run.latency)
    left = "-" if wear is None else f"{wear.seconds / run.latency:.2g}"
    written, energy = (units.show(joules, "J") for joules in (write_energy(run.placement), run.energy))
    latency, area = units.show(run.latency, "s"), units.square_mm(run.area)
    return f"| {name} | {counts} | {written} | {energy} | {latency} | {area} | {left} |"
