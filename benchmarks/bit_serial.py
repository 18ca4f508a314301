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

ROOFLINE = """
**Where the time goes.** Eight input bits, four slices and two halves of a pair for 64 rows are one conversion for
each multiplication of the digital model: 9.2 billion for two images, so 20 times the digital time is 0.41 ns for one,
or 6.6 ns for a vector of 16 (some 14 cycles of a core at 2.1 GHz).

- Sums that are looked up (any CPU): 16 additions of a vector and 9 steps of a conversion on two units, at least 13
  cycles. Measured 7.0 to 7.5 ns.
- Products of tiles (AMX, with `kernels="amx"`): a cell in float32 is the exact sum of three numbers in
  bfloat16, so a current of 64 rows is six products of tiles, at least 6 cycles for 16 currents. Measured 2.7 to 3.5
  ns. A conversion on ideal ranges takes 5 steps (clamp, rounding by an addition and a subtraction, weighted sum), 1.0
  ns, and 1.4 ns where a quotient is needed; the products of the next group run beside it, together 3.7 to 3.9 ns.
  Taking the cells apart is 0.8 ns for 394 input vectors, 1.6 ns for the 197 of K and V, as the cells come from the
  outer caches; the rest is 0.5 ns. Together 5.5 to 6 ns for static weights, more for K and V. Ideal cells, whose
  digits are one number in bfloat16, take 3.9 ns.

What was tried: rows of tiles that cross lines of the cache double the time, so memory is aligned; conversions after
all products of a group instead of between them cost 0.4 ns; cells that are copied before they are taken apart 0.3 ns
more; asking for the next cells ahead saves up to 0.3 ns and was left out. Tiles of 8-bit integers would take half the
products, but cells would have to be rounded to fixed point, and two sums of a current put together. Read noise would
need a normal for each conversion, 1.1 ns each by Philox, that is 10 s for two images or some 50 times: it takes the
general way.
"""


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
    show("Bit-serial inputs", head + "\n".join(lines) + "\n" + ROOFLINE, arguments.write)


if __name__ == "__main__":
    main()
