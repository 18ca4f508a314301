"""How much slower a whole vision transformer of DeiT-S's shape is with weights, K and V on simulated crossbars.

One thread, batch 2, random weights; the digital model and the converted ones take turns in every round, so that a busy
machine slows all alike; medians. Static weights are programmed beforehand, K and V in every pass. Prints a markdown
table; `--write` also keeps it.

    python benchmarks/vit.py [--rounds 10] [--write benchmarks/vit.md]
"""

from __future__ import annotations

import argparse
import platform
from functools import partial
from pathlib import Path

import torch
from shapes import LEVELS, SHAPES, on_crossbars
from torch import nn
from turns import medians, show

import ohmformer as of

BATCH = 2


def cases(images: torch.Tensor) -> dict[str, nn.Module]:
    """The digital model, and the same model on hardware of several kinds."""
    model = SHAPES["deit"].build().eval()
    return {"digital": model, **{name: on_crossbars(model, images, name) for name in LEVELS}}


@torch.inference_mode()
def measure(models: dict[str, nn.Module], images: torch.Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of one forward pass of each model; the models take turns."""
    passes = {name: partial(model, images) for name, model in models.items()}
    with of.samples(range(len(images))):
        return medians(passes, rounds=rounds, warm_up=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.randn(BATCH, 3, 224, 224)
    found = measure(cases(images), images, arguments.rounds)
    lines = [
        f"torch {torch.__version__}, {platform.machine()}, one thread, batch {BATCH}, "
        f"median of {arguments.rounds} rounds; the rows of a table take turns.",
        "",
        "| DeiT-S shape | ms | times digital | images per second |",
        "|---|--:|--:|--:|",
        *(
            f"| {name} | {1e3 * seconds:.0f} | {seconds / found['digital']:.2f} | {BATCH / seconds:.1f} |"
            for name, seconds in found.items()
        ),
    ]
    show("Vision transformer", "\n".join(lines) + "\n", arguments.write)


if __name__ == "__main__":
    main()
