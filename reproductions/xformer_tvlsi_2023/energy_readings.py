"""Which readings of X-Former's energy meet which of the six free claims that depend on it: none meets more than two.

Every combination of the readings that sources leave open is tried: accesses of an array for an input vector (one for
each bit, one for all bits, or a factor on the energy of arrays that meets 6.72 TOPS/W), standing power of a tile, when
idle tiles are switched off, and whether operations of vector lanes pay for the data memory. Everything else is as in
the library.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import ohmformer as of

SETTINGS = [(model, tokens) for model in ("bert-base", "bert-large") for tokens in (512, 384)]
FIRST = SETTINGS[0]
ARRAYS = ("array", "dac", "adc", "sample", "shift_add")
LANES = ("simd", "vector")
ARITHMETIC = 0.475 / 2.185
"""Share of arithmetic in the energy of an operation of a lane; the rest is the data memory."""
STANDING = {"9.06 mW, memories and arithmetic": 9.06e-3, "24.2 mW, all": 24.2e-3, "26.3 mW, control too": 26.3e-3}
EFFICIENCY = "efficiency, 6.72 TOPS/W"
CLAIMS = {
    EFFICIENCY: 6.72e12,
    "largest energy ratio to PUMA, 4.6": 4.6,
    "smallest ratio of power to the GPU, GLUE, 4.85": 4.85,
    "largest, SQuAD, 5.31": 5.31,
    "smallest, SQuAD, 3.52": 3.52,
    "share of the rest in self-attention, 0.14": 0.14,
}
"""Free claims with their published values."""


@dataclass(frozen=True)
class Reading:
    accesses: str
    standing: float
    idle: str
    data_memory: bool


def run(name: str, model: str, tokens: int) -> of.Run:
    flow = of.LayerOverlap(block=64) if name.startswith("xformer") else of.LayerSerial()
    return of.simulate(of.shapes(model, tokens=tokens), of.load(name), flow)


RUNS = {
    (name, *setting): run(name, *setting)
    for name in ("xformer_tvlsi_2023", "puma_asplos_2019", "gtx_1060")
    for setting in SETTINGS
}


def tiles_on(found: of.Run, idle: str) -> float:
    """Mean number of tiles that draw standing power."""
    layers = sum(1 for layer in found.placement.layers if layer.scores is not None)
    of_layer = found.placement.arrays["projection"] // layers // 48
    others = found.placement.tiles - layers * of_layer
    layers_on = {"always on": layers, "off when its program ends": (layers + 1) / 2, "on for one layer": 1}[idle]
    return layers_on * of_layer + others


def joules(key: tuple[str, str, int], reading: Reading, factor: float) -> float:
    found = RUNS[key]
    by = found.energy_by("component")
    if key[0] == "gtx_1060":
        return found.energy
    lanes = 1.0 if reading.data_memory else ARITHMETIC
    scale = {**dict.fromkeys(ARRAYS, factor), **dict.fromkeys(LANES, lanes), "static": 0.0}
    dynamic = sum(value * scale.get(name, 1.0) for name, value in by.items())
    return dynamic + reading.standing * tiles_on(found, reading.idle) * found.latency


def factor_of(reading: Reading) -> float:
    """The factor on the energy of arrays and converters."""
    if reading.accesses != "scaled":
        return {"one for each bit": 1.0, "one for all bits": 1 / 8}[reading.accesses]
    key = ("xformer_tvlsi_2023", *FIRST)
    base, slope = joules(key, reading, 0.0), joules(key, reading, 1.0) - joules(key, reading, 0.0)
    return (RUNS[key].placement.workload.operations / CLAIMS[EFFICIENCY] - base) / slope


def modeled(reading: Reading, factor: float) -> dict[str, float]:
    x = {setting: joules(("xformer_tvlsi_2023", *setting), reading, factor) for setting in SETTINGS}
    puma = max(joules(("puma_asplos_2019", *setting), reading, factor) / x[setting] for setting in SETTINGS)
    power = {
        tokens: [
            RUNS["gtx_1060", *each].power / (x[each] / RUNS["xformer_tvlsi_2023", *each].latency)
            for each in SETTINGS
            if each[1] == tokens
        ]
        for tokens in (512, 384)
    }
    efficiency = RUNS["xformer_tvlsi_2023", *FIRST].placement.workload.operations / x[FIRST]
    values = (efficiency, puma, min(power[512]), max(power[384]), min(power[384]), rest(reading, factor))
    return dict(zip(CLAIMS, values, strict=True))


def rest(reading: Reading, factor: float) -> float:
    """Share in self-attention of what is no product, softmax or write of Q, K, V and attention."""
    stages = {
        part.name: part
        for stage in RUNS["xformer_tvlsi_2023", *FIRST].placement.layers[1].stages
        for part in stage.parts
    }
    engines = total = 0.0
    for name in ("qkv", "write", "key", "value", "output"):
        for component, value in stages[name].energy.items():
            lanes = 1.0 if reading.data_memory or component not in LANES else ARITHMETIC
            scaled = value * (factor if component in ARRAYS else lanes)
            total += scaled
            engines += scaled if name != "output" and component in (*ARRAYS, "write", "softmax") else 0.0
    return 1 - engines / total


def main() -> None:
    """Write the table beside this file."""
    lines = ["# Readings of X-Former's energy", "", *(__doc__ or "").strip().split("\n"), ""]
    lines += [
        "The head of a column names the claim and its published value. Values within 15 % of it are bold; the last",
        "column counts them. With `scaled` accesses, 6.72 TOPS/W is fixed and does not count.",
        "",
    ]
    lines.append(
        "| accesses | standing power of a tile | idle tiles | lanes pay for data memory | "
        + " | ".join(CLAIMS)
        + " | claims met |"
    )
    lines.append("|---" * (5 + len(CLAIMS)) + "|")
    idle = ("always on", "off when its program ends", "on for one layer")
    for accesses, (words, watts), off, memory in product(
        ("one for each bit", "one for all bits", "scaled"), STANDING.items(), idle, (True, False)
    ):
        reading = Reading(accesses, watts, off, memory)
        found = modeled(reading, factor_of(reading))
        met = {name: abs(value / CLAIMS[name] - 1) <= 0.15 for name, value in found.items()}
        met[EFFICIENCY] &= accesses != "scaled"
        values = {name: f"{value / 1e12 if value > 1e6 else value:.3g}" for name, value in found.items()}
        shown = [f"**{value}**" if met[name] else value for name, value in values.items()]
        row = (accesses, words, off, "yes" if memory else "no", *shown, str(sum(met.values())))
        lines.append("| " + " | ".join(row) + " |")
    (Path(__file__).parent / "energy_readings.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
