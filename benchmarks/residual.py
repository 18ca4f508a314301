"""How much slower residual writing of K and V is than writing at once: the writes alone, and whole passes of DeiT-S.

Four 2-bit cells for each value. One thread; both ways of writing, with operations of PyTorch and with compiled kernels,
take turns in every round; medians of processor time. Prints a markdown table; `--write` also keeps it.

    python benchmarks/residual.py [--rounds 15] [--write benchmarks/residual.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from shapes import SHAPES
from turns import medians, show

import ohmformer as of
from ohmformer.array import write_folded
from ohmformer.array.codes.codec import Codec
from ohmformer.array.spec import Crossbar
from ohmformer.streams import SampleStreams, Stream
from ohmformer.streams.backends import Kernels

KERNELS: tuple[Kernels, ...] = ("torch", "compiled")
READS = {"kind": "uniform", "sigma": 0.02}
HARDWARE: dict[str, dict[str, object]] = {
    "exact read-back": {"residual": {}},
    "read-back of 6 bits": {"residual": {"bits": 6}},
    "read-back of 6 bits, read noise": {"residual": {"bits": 6}, "cell.read_noise": READS},
}
"""Case -> changes of the arrays of K and V; without `residual` they are those of the same cells, written at once."""
Cases = dict[str, Callable[[], object]]


def cases_of(name: str, make: Callable[[dict[str, object], Kernels], Callable[[], object]]) -> Cases:
    """Writing at once and residual writing of one kind of hardware, with both kinds of kernels."""
    changes = {"radix": 2, **HARDWARE[name]}
    return {
        f"{how}, {kernels}": make({**changes, "residual": residual}, kernels)
        for kernels in KERNELS
        for how, residual in (("at once", None), ("residual", changes["residual"]))
    }


def write_of(changes: dict[str, object], kernels: Kernels) -> Callable[[], object]:
    """A write of K of two samples of DeiT-S."""
    array: Crossbar = of.load("clipformer_tcad_2024").attention.key.array
    for path, value in changes.items():
        array = of.replace(array, path, value)
    values = torch.randn(2, 6, 197, 64, generator=torch.Generator().manual_seed(0))
    streams = SampleStreams(tuple(Stream(0, "sample", n, kernels=kernels) for n in range(len(values))))
    ranges = values.abs().amax((1, 2, 3), keepdim=True)
    how = {"codec": Codec(array), "code_range": ranges, "w_range": ranges, "stream": streams}
    return partial(write_folded, values, array, **how)  # type: ignore[arg-type]


def pass_of(
    model: torch.nn.Module, images: torch.Tensor
) -> Callable[[dict[str, object], Kernels], Callable[[], object]]:
    """Makes passes of a model."""

    def make(changes: dict[str, object], kernels: Kernels) -> Callable[[], object]:
        hardware = of.load("clipformer_tcad_2024")
        for path, value in changes.items():
            hardware = of.replace(hardware, f"attention.array.{path}", value)
        converted = of.convert(model, hardware, sample=images, level="noise", kernels=kernels)
        return partial(torch.inference_mode()(SHAPES["deit"].work), converted, images)

    return make


def lines_of(title: str, cases: Cases, rounds: int) -> list[str]:
    """Lines of the table: residual writing beside writing at once, for both kinds of kernels."""
    found = medians(cases, rounds=rounds, warm_up=2, clock=time.process_time)
    lines = []
    for kernels in KERNELS:
        once, residual = (1e3 * found[f"{how}, {kernels}"] for how in ("at once", "residual"))
        lines.append(f"| {title} | {kernels} | {once:.2f} | {residual:.2f} | {residual / once:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, model = torch.randn(2, 3, 224, 224), SHAPES["deit"].build().eval()
    lines = []
    for name in HARDWARE:
        lines += lines_of(f"K or V [2, 6, 197, 64], {name}", cases_of(name, write_of), 4 * arguments.rounds)
    for name in HARDWARE:
        lines += lines_of(f"a pass of DeiT-S, {name}", cases_of(name, pass_of(model, images)), arguments.rounds)
    head = (
        f"torch {torch.__version__}, numba {version('numba')}, {platform.machine()}, one thread, batch 2, medians of "
        f"processor time of {4 * arguments.rounds} rounds (writes) and {arguments.rounds} rounds (passes); the columns "
        f"take turns. Load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n\n"
        "| four 2-bit cells for each value | kernels | at once, ms | residual, ms | residual / at once |\n"
        "|---|---|--:|--:|--:|\n"
    )
    show("Residual writing", head + "\n".join(lines) + "\n", arguments.write)


if __name__ == "__main__":
    main()
