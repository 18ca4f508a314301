"""How much slower a step of variation-aware training is than a plain one: forward, backward and AdamW, DeiT-S's shape.

Level `noise`: weights, K and V draw anew in every step. One thread; the digital model and the converted ones, with
operations of PyTorch and with compiled kernels, take turns in every round; medians of processor time. Prints a markdown
table; `--write` also keeps it.

    python benchmarks/variation.py [--rounds 5] [--tokens 50 197] [--write benchmarks/variation.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from turns import medians, show

import ohmformer as of
from ohmformer.models.bundled_vit import VisionTransformer

SHAPES = {"50": (98, 14, 16), "197": (224, 16, 16)}
"""Tokens -> size of images and patches, and how many images a step sees."""
CLASSES = 10
KERNELS = ("torch", "compiled")


def step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One step of training a model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def run() -> None:
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run


def deit_s(size: int, patch: int) -> nn.Module:
    torch.manual_seed(0)
    shape = {"width": 384, "depth": 12, "heads": 6, "mlp_ratio": 4.0}
    return VisionTransformer(size=size, patch=patch, channels=3, classes=CLASSES, **shape).train()  # type: ignore[arg-type]


def measure(size: int, patch: int, batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of a step of each kind."""
    images, labels = torch.randn(batch, 3, size, size), torch.randint(CLASSES, (batch,))
    per_cell, per_value = of.load("clipformer_tcad_2024"), of.load("clipformer_tcad_2024_per_value")
    hardware = {
        "one draw per K/V value": (per_value, 5.0),
        "one draw per 2-bit cell": (per_cell, 5.0),
        "the same, and weights as noisy as K and V": (of.replace(per_cell, "projection", per_cell.attention.key), 5.0),
    }
    cases = {"plain": step(deit_s(size, patch), images, labels)}
    for name, (accelerator, gamma) in hardware.items():
        for kernels in KERNELS:
            how = {"sample": images[:2], "level": "noise", "kernels": kernels}
            model = of.convert(deit_s(size, patch), accelerator, **how)  # type: ignore[arg-type]
            of.variation(model, gamma=gamma).__enter__()
            cases[name if kernels == "torch" else f"{name}, compiled"] = step(model, images, labels)
    return medians(cases, rounds=rounds, warm_up=1, clock=time.process_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"torch {torch.__version__}, numba {version('numba')}, {platform.machine()}, one thread, "
        f"median of {arguments.rounds} rounds of processor time; the rows of a table take turns. "
        f"Load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| step of training, DeiT-S shape | ms | times plain |",
        "|---|--:|--:|",
    ]
    for tokens in arguments.tokens:
        size, patch, batch = SHAPES[tokens]
        found, shape = measure(size, patch, batch, arguments.rounds), f"{tokens} tokens, batch {batch}"
        lines += [
            f"| {shape}: {name} | {1e3 * seconds:.0f} | {seconds / found['plain']:.2f} |"
            for name, seconds in found.items()
        ]
    show("Variation-aware training", "\n".join(lines) + "\n", arguments.write)


if __name__ == "__main__":
    main()
