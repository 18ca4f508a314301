"""What verified writes buy and cost on the hardware of ClipFormer: noise, energy, time and wear, all in closed form.

python benchmarks/mitigation/verify.py > benchmarks/mitigation/verify.md
"""

from __future__ import annotations

import math

import torch

import ohmformer as of
from ohmformer.array.codes.code_moments import held_moments
from ohmformer.array.spec import Crossbar
from ohmformer.cost.weight_programming import programming
from ohmformer.dataflow.lifetime import lifetime
from ohmformer.hardware.spec import Accelerator
from ohmformer.mapping.write_effort import effort
from ohmformer.schema import replace

CASES: list[tuple[object, float]] = [
    (1, 0.05),
    (2, 0.05),
    (4, 0.05),
    (8, 0.05),
    (16, 0.05),
    ([1, 1, 1, 16], 0.05),
    ([1, 1, 4, 16], 0.05),
    ([1, 4, 16, 16], 0.05),
    (64, 0.02),
    ([1, 4, 16, 64], 0.02),
]
"""Writes that are allowed (by slice, the least significant first), and the tolerance as a share of the range."""

SIGMA = 0.2
"""gamma sigma of one write: that of K and V in the library, here of static weights too."""


INTRODUCTION = f"""# Verified writes

`python benchmarks/mitigation/verify.py > benchmarks/mitigation/verify.md`:
DeiT-S on `clipformer_tcad_2024`, in closed form. One write has
gamma sigma = {SIGMA}. A list of writes has one number per slice, the least significant first; the percentage is
the tolerance. All codes are taken as equally likely. Lifetime is that of the cells of K and V at one image a second.
"""
COLUMNS = (
    "writes allowed, tolerance",
    "error of a value, of full scale",
    "writes of a cell",
    "K and V: energy of writing an image",
    "all energy of an image",
    "latency",
    "lifetime",
    "weights: energy of writing once",
)


def error(array: Crossbar) -> float:
    """Root mean square error of a stored value as a share of full scale, where all codes are equally likely."""
    mean, variance = held_moments(array)
    codes = torch.arange(len(mean), dtype=torch.float64)
    return math.sqrt(float(((mean - codes) ** 2 + variance).mean())) / array.max_code


def row(hardware: Accelerator, writes: object, tolerance: float) -> str:
    """A line of the table."""
    write_verify = {"writes": writes, "tolerance": tolerance}
    for place in ("projection", "attention"):
        hardware = replace(hardware, f"{place}.array.cell.write_noise.sigma", SIGMA)
        hardware = replace(hardware, f"{place}.array.write_verify", write_verify)
    work, array = of.shapes("deit-small"), hardware.attention.array
    run = of.simulate(work, hardware)
    life = lifetime(run.placement, 1.0)
    once, made = programming(work, hardware), effort(array, array.slices())
    assert life is not None
    written = sum(run.placement.energy.get(name, 0.0) for name in ("write", "verify"))
    cells = [
        f"{writes}, {100 * tolerance:.0f} %",
        f"{100 * error(array):.2f} %",
        f"{made.writes:.2f}",
        f"{1e6 * written:.1f} µJ",
        f"{1e3 * run.energy:.1f} mJ",
        f"{1e3 * run.latency:.2f} ms",
        f"{life.seconds / 86400:.0f} days",
        f"{1e6 * once.total:.0f} µJ",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    hardware = of.load("clipformer_tcad_2024")
    assert isinstance(hardware, Accelerator)
    print(INTRODUCTION)
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for writes, tolerance in CASES:
        print(row(hardware, writes, tolerance))


if __name__ == "__main__":
    main()
