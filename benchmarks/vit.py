"""How much slower a whole vision transformer of DeiT-S's shape is with weights, K and V on simulated crossbars.

One thread, batch 2, random weights. The digital model and the converted ones, with operations of PyTorch, with compiled
kernels and on the matrix units of the CPU, take turns in every round, so that a busy machine slows all alike. Medians
of processor time, which leaves out the time in which other processes had the core. Static weights are programmed
beforehand, K and V in every pass. A second table says what the time of a pass is spent on. Prints markdown; `--write`
also keeps it.

    python benchmarks/vit.py [--rounds 10] [--compiled] [--write benchmarks/vit.md]
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import pstats
import time
from collections import Counter
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from shapes import LEVELS, LOOPS, SHAPES, on_crossbars
from torch import nn
from torch.profiler import ProfilerActivity, profile
from turns import medians, show
from two_states import values

import ohmformer as of

BATCH = 2
KINDS = {
    **dict.fromkeys(["mm", "addmm", "bmm", "mkldnn_convolution"], "products"),
    **dict.fromkeys(["_scaled_dot_product_flash_attention_for_cpu", "_softmax"], "softmax"),
    "normal_": "normal numbers",
}
"""Operation of PyTorch -> what it is part of. Attention of the digital model is one operation, products included."""
COLUMNS = ("products", "softmax", "normal numbers", "other passes", "small operations")
IN_LOOPS = "compiled loops"
SMALL = 20_000
"""Values below which an operation takes the time of its call."""
TRIED = """
What plain PyTorch does in the same places: products in float32 with the bias inside, one fused operation for
attention, no random numbers, and about 110 M values in other passes. What hardware adds on one thread of a Xeon with
AMX (ns for each value, warm caches; two to five times as much where a new tensor has to come from memory):

- Normal numbers, 3.8 to 4.0 ns: K and V 3.6 M (two halves of a pair 7.3 M, four cells 14.5 M), read noise 24 M, read
  noise in front of converters 65 M. With K and V these alone are 0.07, 0.13, 0.26, 0.6 and 1.3 times the digital model.
- Inputs are rounded in five passes (a sum that finds NaN and infinity 0.12, division 0.38, rounding, clamp and scale
  0.14 each).
- Writing K and V: 22 passes for each cell of a value.
- Read noise: squares of inputs, a second product, its root, and noise times root.

With compiled kernels (ns for each value): normal numbers 1.6, inputs as they are sent 0.3, read noise with its normals
1.7, conversion 0.4, and 2.1 with read noise. Writing K and V with one draw, with range and codes, takes 4. What remains
where it is more than a target:

- Noise, one draw per value (asked 1.3): milliseconds of a pass by function, digital model in brackets: linear layers
  133 (135), attention with softmax 23 (20), K and V into cells 17, inputs 13, check for changed weights 8, other passes
  20 (16). Python takes 7 to 8 ms, where it took 18: so much more does a model of as many layers take with 64 features
  and 5 tokens than if it is digital. The sum is 1.3; measured ratios are larger, since other work shared the caches.
- With converters (asked 1.8): products of 128 rows 0.9, conversions of 65 M currents 0.23, K and V in cells 0.1, inputs
  0.08, Python 14 ms, 0.08 (it was 25 ms).
- With read noise (asked 2.5): the second product 145 ms, 0.8; read noise 24 M x 1.7 ns, 0.23; Python 13 ms (27), 0.08.
- With both (asked 3.0): both products 283 ms, 1.6; 65 M conversions with read noise 142 ms, 0.8; Python 21 ms (38),
  0.12.

On the matrix units of the CPU (`kernels = "amx"`). Whole layers of 394 tokens at a load of 4 to 6 on two cores, ns
for each value: a conversion with its product 1.3 to 1.5 in place of 2.4, with read noise 3.6 to 4.0 in place of 5.8
to 6.8. [394, 384] x [384, 1536] with read noise takes 2.8 ms, where the digital product takes 3.0. By samples of a
profile, when variances still were two numbers of bfloat16 each (4.6 in all): tile instructions 2.0, normal numbers
1.45, conversion 0.46, root and sum 0.3. With both (asked 3.0), milliseconds of a pass by function: reads 290 (1.6),
inputs into tiles 22, K and V into tiles 22 and into cells 30, inputs 15; other passes and Python take the rest. Tile
instructions alone need 16 cycles each: with 64 of them for 32 x 32 results of 128 rows, 0.4 ns for each result at 2.5
GHz. The rest is waiting for tiles in the second cache, which other work shared.

- Currents by three products of bfloat16 (error 1e-7, where float32 has 3e-7): with currents written to memory they take
  0.97 ms for [394, 128] x [128, 1536], in place of 1.23; a strip of 32 rows and 256 columns that stays in the cache
  takes a third of that, so noise and conversion of the strip follow at once. 64 or 128 columns are slower (by 0.5 and
  0.1 ns for each value).
- Squares and variances as two numbers of bfloat16 each (error 3e-6) take 0.9 ns more for each conversion with read
  noise than one number each (standard deviation off by at most 0.4 %).
- Normals in one loop for words and one for pairs of normals: 0.97 in place of 1.01 ns, not kept. A row of 197 numbers
  is drawn as 256, since what is left of a vector takes as long.

What made passes faster:

- Settings of an operand found once, not in every call (linear layer of 64 features: 45 in place of 107 us; K or V of 5
  tokens: 50 in place of 390).
- Inputs that are rounded to multiples of the value of one code: the product has its scale and its bias without a pass.
- K and V by one loop, from any layout: ranges, check for NaN, codes, noise, scale.
- Loops that take addresses: a call takes 1 us, with arrays 5 to 10.
- Compiled loops: views of contiguous values in place of offsets (an offset may be negative for the compiler, which then
  does not use vectors: conversion 2.2 before, 0.4 after), vectors of 512 bits (normals 2.0 in place of 2.7 on a busy
  core), memory that is used again for currents, variances and codes.
- One checksum of weights in place of their sum and the sum of squares: 0.09 in place of 0.14 ms for 590,000 weights.
- Bias, scale of scores and noise of writes in place; ranges without a tensor of magnitudes; the last slice without
  a division.

What did not:

- The second product in bfloat16 by an operation of PyTorch: 0.7 in place of 3.7 ms for [394, 384] x [384, 1536], and
  passes with read noise 8 to 13 % faster. It was not kept: in one of 30,000 results rounding to bfloat16 depends on the
  shape of the batch, and in all of them on the CPU.
- Passes in pieces that fit into the cache: noise 0.73 to 0.78 in place of 0.71 ms for 605,000 values, conversion 0.75
  in place of 0.67, quantization 0.79 in place of 0.66. Calls cost what the cache saves.
- One batched product for all blocks of rows: three products of 128 rows take 3.2 ms, one of 384 rows takes 3.7.
- Integer products (`_int_mm`, 0.3 to 0.75 ms, exact): 8 bits are too few for squares and variances, and two parts of
  each take as long as float32.
- The switch of PyTorch that rounds inside float32 products (0.9 ms): it holds for all threads of the process.
- Exact integer products of variances in two parts of 7 bits each (`_int_mm`): three products of 0.3 to 0.75 ms in
  place of one of 3.3 ms. With row blocks they gain nothing (0.45 ms for [394, 128] x [128, 1536], two or three times,
  in place of 1.1), since integers of 32 bits have to be written and read. Without converters they could save 60 ms of
  545, by an estimate; the target would still be missed, and variances would be rounded to 14 bits.
- `addcmul` for noise of writes: it rounds once instead of twice, so all results would change in their last digit.
"""
"""What made a pass faster, and what did not."""


def cases(model: nn.Module, images: torch.Tensor, name: str, *, plain: bool) -> dict[str, nn.Module]:
    """A digital model, and the model on hardware of a kind; with `plain`, by operations of PyTorch, too."""
    found: dict[str, nn.Module] = {"digital": model}
    if plain:
        found[name] = on_crossbars(model, images, name)
    return found | {f"{name}, {kernels}": on_crossbars(model, images, name, kernels) for kernels in LOOPS}


@torch.inference_mode()
def measure(models: dict[str, nn.Module], images: torch.Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of one forward pass of each model; the models take turns."""
    passes = {name: partial(model, images) for name, model in models.items()}
    with of.samples(range(len(images))):
        return medians(passes, rounds=rounds, warm_up=2, clock=time.process_time)


@torch.inference_mode()
def spent(model: nn.Module, images: torch.Tensor, rounds: int) -> str:
    """The cells of a table: milliseconds of each kind of operation in one pass, each call as its fastest."""
    shortest: dict[str, float] = {}
    calls: Counter[str] = Counter()
    kinds: dict[str, str] = {}
    with of.samples(range(len(images))):
        for _ in range(rounds):
            with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
                model(images)
            calls.clear()
            for each in seen.events():
                size, name = max(map(values, each.input_shapes), default=0), each.key.removeprefix("aten::")
                key, took = f"{name} {each.input_shapes}", each.self_cpu_time_total / 1e3
                kinds[key] = KINDS.get(name, "other passes" if size >= SMALL else "small operations")
                shortest[key] = min(shortest.get(key, took), took)
                calls[key] += 1
        loops = min(in_loops(model, images) for _ in range(rounds))
    sums = {kind: sum(shortest[key] * n for key, n in calls.items() if kinds[key] == kind) for kind in COLUMNS}
    return " | ".join(f"{took:.0f}" for took in (*sums.values(), 1e3 * loops))


def in_loops(model: nn.Module, images: torch.Tensor) -> float:
    """Seconds of one pass in compiled loops, of which the profiler of PyTorch knows nothing."""
    calls = cProfile.Profile(time.process_time)
    calls.runcall(model, images)
    files = pstats.Stats(calls).stats  # type: ignore[attr-defined]
    return sum(own for (file, _, _), (_, _, own, _, _) in files.items() if file.endswith(("_compiled.py", "_amx.py")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compiled", action="store_true", help="leave out the rows with operations of PyTorch")
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.randn(BATCH, 3, 224, 224)
    model = SHAPES["deit"].build().eval()
    rows, operations = list[str](), [f"| digital | {spent(model, images, arguments.rounds)} |"]
    for kind in LEVELS:
        models = cases(model, images, kind, plain=not arguments.compiled)
        found = measure(models, images, arguments.rounds)
        digital = found.pop("digital")
        rows += [
            f"| {name} | {1e3 * seconds:.0f} | {1e3 * digital:.0f} | {seconds / digital:.2f} | {BATCH / seconds:.1f} |"
            for name, seconds in found.items()
        ]
        operations += [f"| {name} | {spent(models[name], images, arguments.rounds)} |" for name in found]
    lines = [
        f"torch {torch.__version__}, numba {version('numba')}, {platform.machine()}, one thread, batch {BATCH}, "
        f"median of {arguments.rounds} rounds of processor time. The digital model and those of one kind of hardware "
        f"take turns. Load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| DeiT-S shape | ms | digital, ms | times digital | images per second |",
        "|---|--:|--:|--:|--:|",
        *rows,
        "",
        "Milliseconds of the operations of a pass, without what Python takes between them: each call counts as the "
        "fastest one of its shape.",
        "",
        f"| DeiT-S shape | {' | '.join((*COLUMNS, IN_LOOPS))} |",
        f"|---|{'--:|' * (1 + len(COLUMNS))}",
        *operations,
        "",
        TRIED.strip(),
    ]
    show("Vision transformer", "\n".join(lines) + "\n", arguments.write)


if __name__ == "__main__":
    main()
