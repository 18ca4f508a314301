"""What conditioning K and V costs beside everything else: energy, latency and memory, by basis.

python benchmarks/mitigation/conditioning.py > benchmarks/mitigation/conditioning.md
"""

from __future__ import annotations

import ohmformer as of
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import Conditioning
from ohmformer.workload.spec import Workload

CASES = (("deit-small", "clipformer_tcad_2024"), ("bert-base", "nvm_ideal"))
BASES = ("own", "rescaled", "hadamard", "balanced")
FLOWS = {"layer by layer": of.LayerSerial(), "blocks of 64": of.SequenceBlocking(block=64)}

INTRODUCTION = """# Conditioning of K and V

`python benchmarks/mitigation/conditioning.py > benchmarks/mitigation/conditioning.md`. The mean of the tokens is
removed, each token has a
scale of its own, and codes are bias-corrected, as `auto` does it. `own` keeps the basis; the other rows change it.
"Energy of conditioning" is that of the operation `conditioning`. "All energy" also has the power that tiles draw while
they wait. Percentages in brackets compare with no conditioning. Arrays, cells, writes, conversions and area do not
change.
"""
COLUMNS = (
    *("model, accelerator", "dataflow", "basis", "operations", "energy of conditioning", "share of all"),
    *("all energy", "latency", "memory"),
)


def rows(work: Workload, hardware: Accelerator, name: str) -> list[str]:
    """Lines of the table for one model."""
    found = []
    for title, flow in FLOWS.items():
        plain = of.simulate(work, hardware, flow)
        for basis in BASES:
            run = of.simulate(
                work, hardware, flow, kv=Conditioning(mean=True, basis=basis, scale="token", unbiased=True)
            )
            same = [(made.placement.counts, made.placement.arrays, made.area) for made in (plain, run)]
            assert same[0] == same[1], "conditioning takes no arrays"
            assert hardware.chip is not None
            operations = run.placement.energy["conditioning"] / hardware.chip.vector.energy_per_op
            energy = run.energy_by("operation")["conditioning"]
            cells = (
                *(name, title, basis, f"{operations / 1e6:.4g} M", f"{energy * 1e6:.4g} µJ"),
                f"{100 * energy / run.energy:.2f} %",
                f"{run.energy * 1e3:.4g} mJ ({100 * (run.energy / plain.energy - 1):+.2f} %)",
                f"{run.latency * 1e3:.4g} ms ({100 * (run.latency / plain.latency - 1):+.2f} %)",
                f"{run.timeline.peak_buffer()['conditioning'] / 1e3:.4g} kB",
            )
            found.append(f"| {' | '.join(cells)} |")
    return found


def main() -> None:
    """Print the table."""
    print(INTRODUCTION)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for model, name in CASES:
        hardware, work = of.load(name), of.shapes(model)
        assert isinstance(hardware, Accelerator)
        print("\n".join(rows(work, hardware, f"{work.title}, {work.tokens} tokens, {name}")))


if __name__ == "__main__":
    main()
