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
from torch import nn
from turns import medians

import ohmformer as of
from ohmformer.models.bundled_vit import VisionTransformer

BATCH = 2
NO_ADC = {"bits": "ideal"}


def without(hardware: of.Accelerator, field: str, value: object) -> of.Accelerator:
    """The accelerator with one field of all its arrays changed."""
    return of.replace(of.replace(hardware, f"projection.array.{field}", value), f"attention.array.{field}", value)


def cases(images: torch.Tensor) -> dict[str, nn.Module]:
    """The digital model, and the same model on hardware of several kinds."""
    model = VisionTransformer(size=224, patch=16, channels=3, width=384, depth=12, heads=6, mlp_ratio=4.0, classes=1000)
    model.eval()
    per_cell, per_value = of.load("clipformer_tcad_2024"), of.load("clipformer_tcad_2024_per_value")
    amplitude = of.load("generic_amplitude")
    ideal_adc = without(amplitude, "adc", NO_ADC)
    no_reads = without(ideal_adc, "cell.read_noise", {"kind": "none"})
    adc_only = without(amplitude, "cell.read_noise", {"kind": "none"})
    hardware = {
        "noise, one draw per K/V value": (per_value, "noise"),
        "noise, one draw per 2-bit cell": (per_cell, "noise"),
        "array, 128 rows, amplitude": (no_reads, "array"),
        "array, 128 rows, amplitude, 8-bit ADC": (adc_only, "array"),
        "array, 128 rows, amplitude, read noise": (ideal_adc, "array"),
        "array, 128 rows, amplitude, read noise, 8-bit ADC": (amplitude, "array"),
    }
    converted = {
        name: of.convert(model, spec, sample=images, level=level)  # type: ignore[arg-type]
        for name, (spec, level) in hardware.items()
    }
    return {"digital": model, **converted}


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
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if arguments.write:
        arguments.write.write_text(f"# Vision transformer\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
