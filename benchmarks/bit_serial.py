"""How much slower DeiT-S is on bit-serial arrays with real converters: 64 rows, 4 slices, 8 input bits.

Every pair of cells, slice, input bit and block of rows has a conversion of its own, so a product has 64 times the
currents of the digital one. One thread; the rows of a table take turns; medians of processor time. Operations of
PyTorch take long for the whole model, so they are timed for two of its blocks. Prints a markdown table; `--write` also
keeps it.

    python benchmarks/bit_serial.py [--rounds 3] [--write benchmarks/bit_serial.md]
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
from ohmformer.models.bundled_vit import VisionTransformer

CASES = {2: ("torch", "compiled"), 12: ("compiled",)}
"""Blocks of the model -> kernels that are timed."""
HARDWARE = "clipformer_tcad_2024_adc8"


def measure(blocks: int, images: torch.Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of a pass of a model of some blocks: digital, and with each kind of kernels."""
    shape = {"width": 384, "depth": blocks, "heads": 6, "mlp_ratio": 4.0, "classes": 1000}
    model = VisionTransformer(size=224, patch=16, channels=3, **shape).eval()  # type: ignore[arg-type]
    work = torch.inference_mode()(SHAPES["deit"].work)
    passes: dict[str, Callable[[], object]] = {"digital": partial(work, model, images)}
    for kernels in CASES[blocks]:
        how = {"sample": images, "level": "array", "kernels": kernels}
        passes[kernels] = partial(work, of.convert(model, of.load(HARDWARE), **how), images)  # type: ignore[arg-type]
    return medians(passes, rounds=rounds, warm_up=1, clock=time.process_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, lines = torch.randn(2, 3, 224, 224), []
    for blocks in CASES:
        found = measure(blocks, images, arguments.rounds)
        lines += [
            f"| {blocks} | {name} | {1e3 * took:.0f} | {took / found['digital']:.1f} |" for name, took in found.items()
        ]
    head = (
        f"torch {torch.__version__}, numba {version('numba')}, {platform.machine()}, one thread, batch 2, median of "
        f"{arguments.rounds} rounds of processor time; the rows of one model take turns. Load of the machine "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. `{HARDWARE}`, level `array`, no read noise.\n\n"
        "| blocks of DeiT-S | kernels | ms | times digital |\n|--:|---|--:|--:|\n"
    )
    show("Bit-serial inputs", head + "\n".join(lines) + "\n", arguments.write)


if __name__ == "__main__":
    main()
