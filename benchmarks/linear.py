"""How much slower a linear layer is on simulated crossbars than the digital one.

One thread; digital layer and levels, with operations of PyTorch and with compiled kernels, take turns in every round;
medians of processor time, which leaves out the time in which other processes had the core. Weights are programmed
beforehand, as they are in a converted model. Prints a markdown table; `--write` also keeps it.

    python benchmarks/linear.py [--rounds 60] [--write benchmarks/linear.md]
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from turns import medians, show

from ohmformer.array import Folded, fold, folded_product, mvm, program, write, write_folded
from ohmformer.array.encoding import quantize, quantize_input
from ohmformer.array.spec import Crossbar
from ohmformer.schema import load, replace
from ohmformer.streams import SampleStreams, Stream
from ohmformer.streams.backends import Kernels

SHAPES = ((384, 384), (384, 1536), (1536, 384))
BATCH, TOKENS = 2, 197
CELL_ROWS = 64, 128
"""Rows of the arrays whose devices are read one by one, in three rounds at most."""
KERNELS: tuple[Kernels, ...] = ("torch", "compiled")


def samples(count: int, kernels: Kernels) -> SampleStreams:
    """Streams of some samples."""
    return SampleStreams(tuple(Stream(0, "sample", n, kernels=kernels) for n in range(count)))


ROOFLINE = """
**Where the time of level `cell` goes.** The three layers have 1.33 million weights in pairs of cells, read by 394
input vectors: 1.05 billion reads of a device, each with a standard normal of its own. A hundred times the digital
time is 0.8 ns for a read. Philox takes 0.48 ns for a normal and the method of Box and Muller 0.65 ns (a core to
itself, vectors of 512 bits; about 16 and 21 cycles for 16 numbers, where the operations alone need 15 and 20), 1.1 ns
together, and 1.6 ns while other work shares the core. The read of the device and the sum of the column take 0.1 to
0.2 ns more, keys of the input vectors another 0.02 to 0.2 ns. So 100 times is below what the normals alone take, some
140 times; another generator or fewer bits for a normal would be needed. Products in 64-bit words (the same bits) and
another order of the normals in memory took as long. Before the loop, the plain code took 1,100 to 1,250 times, with
either kind of normals.
"""


Cases = dict[str, Callable[[], object]]


def linear_cases(inputs: int, outputs: int) -> Cases:
    """The digital layer, and the same on 128-row arrays with amplitude inputs and one cell per value."""
    x, w = torch.randn(BATCH, TOKENS, inputs), torch.randn(outputs, inputs)
    x_range = x.abs().amax()
    converted = load(Crossbar, "generic_amplitude")
    converted = replace(converted, "adc.range", {"kind": "given", "high": 0.02})
    ideal = replace(converted, "adc", {})
    quiet = replace(ideal, "cell.read_noise", {"kind": "none"})

    def folded(hardware: Crossbar, held: Folded, kernels: Kernels) -> torch.Tensor:
        codes, unit = quantize_input(x, hardware, x_range, signed=True, kernels=kernels)
        return folded_product(codes, held, hardware, samples(BATCH, kernels)).mul_(unit)

    def converted_by(hardware: Crossbar, kernels: Kernels) -> torch.Tensor:
        return mvm(x, programmed[hardware], x_range=x_range, stream=samples(BATCH, kernels))

    still = replace(converted, "cell.read_noise", {"kind": "none"})
    programmed = {hardware: program(w, hardware) for hardware in (converted, still, ideal, quiet)}
    weights = {hardware: fold(programmed[hardware]) for hardware in (ideal, quiet)}
    cases: Cases = {"digital": lambda: F.linear(x, w)}
    for kernels in KERNELS:
        of = "" if kernels == "torch" else ", compiled"
        cases[f"noise{of}"] = partial(folded, quiet, weights[quiet], kernels)
        cases[f"array, read noise{of}"] = partial(folded, ideal, weights[ideal], kernels)
        cases[f"array, ADC{of}"] = partial(converted_by, still, kernels)
        cases[f"array, read noise and ADC{of}"] = partial(converted_by, converted, kernels)
    return cases


def cell_cases(rows: int) -> Cases:
    """Level `cell` for the three layers one after the other: every device of a pair is read for every input vector."""
    hardware = replace(load(Crossbar, "generic_amplitude"), "adc.range", {"kind": "given", "high": 0.02})
    hardware = replace(hardware, "rows", rows)
    layers = [(torch.randn(BATCH, TOKENS, i), torch.randn(o, i)) for i, o in SHAPES]
    programmed = [program(w, hardware) for _, w in layers]

    def read(kernels: Kernels) -> None:
        for (x, _), cells in zip(layers, programmed, strict=True):
            mvm(x, cells, level="cell", stream=samples(BATCH, kernels))

    cases: Cases = {"digital": lambda: [F.linear(x, w) for x, w in layers]}
    return cases | {"cell": partial(read, "torch"), "cell, compiled": partial(read, "compiled")}


def small_cell_cases() -> Cases:
    """Level `cell` on a tiny layer with bit-serial inputs."""
    x, w = torch.randn(1, 4, 64), torch.randn(64, 64)
    programmed = program(w, load(Crossbar, "clipformer_2024"))
    return {"digital": lambda: F.linear(x, w), "cell": lambda: mvm(x, programmed, level="cell")}


def write_cases() -> Cases:
    """K or V of six heads, 197 tokens, written with noise per 2-bit cell, against the digital product with them."""
    hardware = load(Crossbar, "clipformer_2024")
    k, q = torch.randn(1, 6, TOKENS, 64), torch.randn(1, 6, TOKENS, 64)
    w_range = k.abs().amax()
    codes = quantize(k, hardware, w_range)
    kept = replace(hardware, "bits_per_cell", 8)
    cases: Cases = {"digital": lambda: q @ k.transpose(-2, -1)}
    for kernels in KERNELS:
        of, stream = "" if kernels == "torch" else ", compiled", samples(1, kernels)
        how = {"stream": stream, "w_range": w_range}
        folded: Callable[..., object] = partial(write_folded, codes, read_noise=False, **how)
        cases[f"write and fold{of}"] = partial(written_and_folded, codes, hardware, how)
        cases[f"write_folded{of}"] = partial(folded, array=hardware)
        cases[f"write_folded, 3 slices{of}"] = partial(
            write_folded, codes.clamp(-63, 63), hardware, max_code=63, read_noise=False, **how
        )
        cases[f"write_folded, one cell per value{of}"] = partial(folded, array=kept)
    return cases


def written_and_folded(codes: torch.Tensor, hardware: Crossbar, how: dict[str, Any]) -> Folded:
    """A write whose cells are kept, and their sum."""
    return fold(write(codes, hardware, **how), read_noise=False)


def table(rounds: int) -> str:
    """All measurements as markdown."""
    groups = {f"x[{BATCH}, {TOKENS}, {i}] -> {o}": linear_cases(i, o) for i, o in SHAPES}
    for rows in CELL_ROWS:
        groups[f"the three layers, {rows} rows, read noise and ADC"] = cell_cases(rows)
    groups["x[1, 4, 64] -> 64, 2-bit cells, bit-serial"] = small_cell_cases()
    groups["K or V [1, 6, 197, 64], 2-bit cells"] = write_cases()
    lines = [
        f"torch {torch.__version__}, {platform.machine()}, one thread, median of {rounds} rounds of processor time; "
        "the rows of a table take turns.",
        "",
        "| case | level | ms | times digital |",
        "|---|---|--:|--:|",
    ]
    for name, cases in groups.items():
        slow = name.startswith("the three layers")
        few = {"rounds": min(rounds, 3), "warm_up": 1} if slow else {"rounds": rounds, "warm_up": 3}
        found = medians(cases, **few, clock=time.process_time)
        lines += [
            f"| {name} | {level} | {1e3 * seconds:.2f} | {seconds / found['digital']:.1f} |"
            for level, seconds in found.items()
        ]
    return "\n".join(lines) + "\n" + ROOFLINE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    show("Linear layers", table(arguments.rounds), arguments.write)


if __name__ == "__main__":
    main()
